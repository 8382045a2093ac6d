import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { testDatabase, testRedis } from '../../support/databases.ts'
import { type BatonProcess, freePort, spawnBaton } from '../../support/processes.ts'

let environment: Record<string, string>
const port = await freePort()
let web: BatonProcess

beforeAll(async () => {
  environment = {
    DATABASE_URL: (await testDatabase()).url,
    REDIS_URL: (await testRedis()).url,
    PORT: String(port),
    HOST: '127.0.0.1',
    NODE_ENV: 'production',
    BATON_SECRET: 'a-secret-of-sixteen-characters',
    SHUTDOWN_MS: '5000',
  }
  web = spawnBaton(['web'], environment)
  await web.waitForLine(/web takes requests/)
})
afterAll(() => web.kill())

const request = (path: string, key?: string): Promise<Response> =>
  fetch(`http://127.0.0.1:${port}${path}`, key ? { headers: { authorization: `Bearer ${key}` } } : {})

async function run(...args: string[]): Promise<{ code: number | null; stdout: string; lines: string }> {
  const child = spawnBaton(args, environment)
  const { code } = await child.exit
  return { code, stdout: child.stdout.join('\n'), lines: child.lines.join('\n') }
}

describe('baton web', () => {
  it('starts without a key and says how to make one, which then works, and stops working when revoked', async () => {
    expect(await web.waitForLine(/baton keys create/)).toContain('"level":"warn"')
    const made = await run('keys', 'create', '--role', 'viewer', '--name', 'eyes')
    expect(made.code).toBe(0)
    // Nothing but the key stands on standard output, so that it can be taken over by a script.
    const key = made.stdout
    expect(key).toMatch(/^baton_[0-9a-f]{48}$/)
    expect((await request('/v1/jobs', key)).status).toBe(200)
    const listed = await run('keys', 'list', '--json')
    expect(JSON.parse(listed.stdout)).toMatchObject({
      keys: [{ name: 'eyes', role: 'viewer', prefix: key.slice(0, 12) }],
    })
    expect(listed.lines).not.toContain(key.slice(12))
    expect((await run('keys', 'revoke', key.slice(0, 12))).code).toBe(0)
    await expect.poll(async () => (await request('/v1/jobs', key)).status, { timeout: 30_000 }).toBe(401)
  })

  it('says what is wrong with a command for keys', async () => {
    expect((await run('keys', 'create', '--role', 'boss', '--name', 'x')).code).toBe(2)
    const none = await run('keys', 'revoke', 'baton_000000')
    expect(none.code).toBe(1)
    expect(none.lines).toContain('KEY_NOT_FOUND')
  })

  it('is ready, stops on TERM however often it comes, and ends with 0', async () => {
    expect(await (await request('/readyz')).json()).toMatchObject({ ready: true, checks: { queue: 'ok' } })
    web.signal('SIGTERM')
    await web.waitForLine(/web stops/)
    web.signal('SIGTERM')
    web.signal('SIGINT')
    expect(await web.exit).toEqual({ code: 0, signal: null })
    expect(web.lines.join('\n')).toContain('"clean":true')
  })
})

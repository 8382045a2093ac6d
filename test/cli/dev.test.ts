import { once } from 'node:events'
import { createServer } from 'node:net'
import { expect, it } from 'vitest'
import { testDatabase, testRedis } from '../support/databases.ts'
import { atEndOfTest, spawnBaton } from '../support/processes.ts'
import { runBaton } from './run-baton.ts'

const environment = async (port: number): Promise<Record<string, string>> => ({
  DATABASE_URL: (await testDatabase()).url,
  REDIS_URL: (await testRedis()).url,
  HOST: '127.0.0.1',
  PORT: String(port),
  JOBS_MODULE: 'test/fixtures/jobs/index.ts',
  WORKER_PROCESSES: '1',
})

/** Somebody else's server, that answers to everything. */
async function takePort(): Promise<number> {
  const server = createServer((socket) => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n'))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  atEndOfTest(() => server.close())
  const address = server.address()
  return typeof address === 'object' && address ? address.port : 0
}

it('dev prints an address and keys that work, and stops everything on TERM', async () => {
  const dev = spawnBaton(['dev'], await environment(0))
  const address = (await dev.waitForLine(/Baton runs at/)).trim().split(/\s+/).at(-1) ?? ''
  await dev.waitForLine(/stop with Ctrl-C/)
  await dev.waitForLine(/child is up/)
  const keyOf = (role: string): string =>
    dev.stdout
      .find((line) => line.includes(`${role} key`))
      ?.trim()
      .split(/\s+/)
      .at(-1) ?? ''
  const post = await fetch(new URL('/v1/jobs', address), {
    method: 'POST',
    headers: { authorization: `Bearer ${keyOf('producer')}`, 'content-type': 'application/json' },
    body: JSON.stringify({ name: 'sleep', payload: { ms: 1 } }),
  })
  expect(post.status).toBe(202)
  const { id } = (await post.json()) as { id: string }
  const state = async (): Promise<unknown> => {
    const headers = { authorization: `Bearer ${keyOf('operator')}` }
    const job = await fetch(new URL(`/v1/jobs/${id}`, address), { headers })
    return ((await job.json()) as { state: unknown }).state
  }
  await expect.poll(state, { timeout: 30_000 }).toBe('completed')
  dev.signal('SIGTERM')
  expect(await dev.exit).toEqual({ code: 0, signal: null })
  const said = dev.lines.join('\n')
  expect(said).toContain('worker has stopped')
  expect(said).toContain('web has stopped')
})

it.each(['dev', 'web'])(
  '%s says in one line that its port is taken, and takes nobody for itself',
  async (verb) => {
    const port = await takePort()
    const env = await environment(port)
    const { code, stdout, stderr } = await runBaton([verb], { env })
    expect(code).toBe(1)
    expect(stderr).toMatch(
      new RegExp(`Cannot listen on 127.0.0.1:${port}: another process does already.*PORT_UNAVAIL`),
    )
    expect(stderr).not.toContain('    at ')
    expect(stdout).not.toContain('Baton runs at')
  },
)

import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sha256 } from '../../../src/core/digest.ts'
import { testDatabase } from '../../support/databases.ts'
import { projectRoot } from '../../support/processes.ts'

let environment: Record<string, string>
let folder: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'baton-cli-'))
  const { url } = await testDatabase()
  environment = {
    PATH: process.env['PATH'] ?? '',
    DATABASE_URL: url,
    BODY_STORES: `file:${folder}/a,file:${folder}/b`,
  }
})
afterAll(() => rm(folder, { recursive: true, force: true }))

interface Ended {
  code: number
  out: string
  err: string
}

const baton = (args: string[], input = '', change: Record<string, string> = {}): Promise<Ended> =>
  new Promise((resolve) => {
    const env = { ...environment, ...change }
    const command = ['src/main.ts', 'bodies', ...args]
    const child = execFile(process.execPath, command, { cwd: projectRoot, env }, (error, out, err) =>
      resolve({ code: Number(error?.code ?? 0), out, err }),
    )
    child.stdin?.end(input)
  })
const pathIn = (store: string, id: string): string => join(folder, store, 'bodies', id.slice(0, 2), id)

describe('baton bodies', () => {
  it('puts standard input or a file, and gets it back', async () => {
    const id = sha256('hello')
    expect(await baton(['put'], 'hello')).toEqual({ code: 0, out: `${id}\n`, err: '' })
    expect((await baton(['get', id])).out).toBe('hello')
    const file = join(folder, 'file')
    await writeFile(file, 'from a file')
    const put = JSON.parse((await baton(['put', file, '--json'])).out) as { id: string }
    expect(put).toEqual({ id: sha256('from a file'), size: 11, copies: 2 })
    await baton(['get', put.id, '-o', join(folder, 'out')])
    expect(await readFile(join(folder, 'out'), 'utf8')).toBe('from a file')
  })

  it('fails with the reason for what is not there, is no id, or is no store', async () => {
    expect(await baton(['get', sha256('none')])).toMatchObject({
      code: 1,
      err: expect.stringContaining('BODY_NOT_FOUND'),
    })
    expect(await baton(['get', '../x'])).toMatchObject({
      code: 1,
      err: expect.stringContaining('BODY_ID_INVALID'),
    })
    expect(await baton(['put', '/does/not/exist'])).toMatchObject({
      code: 1,
      err: expect.stringContaining('/does/not/exist cannot be read: ENOENT'),
    })
    expect(await baton(['fly'])).toMatchObject({ code: 2 })
    const odd = { BODY_STORES: 'ftp://a,file:/b' }
    expect(await baton(['status'], '', odd)).toMatchObject({
      code: 78,
      err: expect.stringContaining('BODY_STORE_INVALID'),
    })
  })

  it('scrubs, mends, and tells of it; a body that is lost makes it fail', async () => {
    const id = (await baton(['put'], 'to be spoilt')).out.trim()
    await writeFile(pathIn('a', id), 'spoilt')
    const { code, out } = await baton(['scrub', id])
    expect(code).toBe(0)
    expect(out).toContain('1 checked, 1 bad, 0 missing, 0 lost')
    expect(await readFile(pathIn('a', id), 'utf8')).toBe('to be spoilt')
    expect(JSON.parse((await baton(['scrub', '--json'])).out)).toMatchObject({ lost: 0 })
    for (const store of ['a', 'b']) await writeFile(pathIn(store, id), 'spoilt')
    expect(await baton(['scrub', id])).toMatchObject({ code: 1, out: expect.stringContaining('LOST') })
  })

  it('tells how the stores are', async () => {
    const { out } = await baton(['status', '--json'])
    const status = JSON.parse(out) as { bodies: number; stores: { name: string; state: string }[] }
    expect(status.bodies).toBeGreaterThan(1)
    expect(status.stores.map(({ name, state }) => [name, state])).toEqual([
      [`file:${folder}/a`, 'ok'],
      [`file:${folder}/b`, 'ok'],
    ])
    expect((await baton(['status'])).out).toContain(`store    file:${folder}/a`)
    expect((await baton(['sweep'])).out).toContain('0 condemned, 0 removed')
  })

  it('refuses a place that was replaced until it is adopted', async () => {
    await rm(join(folder, 'b'), { recursive: true })
    expect(await baton(['status'])).toMatchObject({
      code: 1,
      out: expect.stringContaining('is the disk mounted?'),
    })
    expect((await baton(['adopt', `file:${folder}/b`])).out).toMatch(/\d+ bodies will be copied/)
    expect((await baton(['status', '--json'])).out).toContain('"state": "ok"')
  })
})

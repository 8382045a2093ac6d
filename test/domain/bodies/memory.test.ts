import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'
import { testDatabase } from '../../support/databases.ts'

const source = (path: string): string => join(import.meta.dirname, '../../../src', path)

/** Puts a long body and gets it back, in a process of its own, and tells how its memory grew. */
const program = `
  import { createSystemClock } from '${source('core/clock.ts')}'
  import { createBodies } from '${source('domain/bodies/bodies.ts')}'
  import { createDirectoryStore } from '${source('domain/bodies/stores/directory.ts')}'
  import { createPostgres } from '${source('platform/postgres/postgres.ts')}'
  import { createLog } from '${source('platform/log.ts')}'
  const [url, folder, size] = process.argv.slice(1)
  const clock = createSystemClock()
  const postgres = createPostgres({ url, max: 2, applicationName: 'memory', onError: () => undefined })
  const stores = ['a', 'b'].map((name) => createDirectoryStore({ root: folder + '/' + name, clock }))
  const bodies = createBodies({ stores, postgres, clock, log: createLog({ level: 'silent', process: 'test' }) })
  async function* bytes(length) {
    for (let sent = 0; sent < length; sent += 65536) yield Buffer.alloc(65536, sent % 251)
  }
  const read = async (id) => {
    let length = 0
    for await (const chunk of bodies.read(id)) length += chunk.length
    return length
  }
  const measured = async (work) => {
    let peak = 0
    const timer = setInterval(() => (peak = Math.max(peak, process.memoryUsage.rss())), 5)
    const result = await work()
    clearInterval(timer)
    return { result, peak }
  }
  const small = await bodies.put(bytes(8 * 2 ** 20))
  await read(small.id)
  const before = process.memoryUsage.rss()
  const put = await measured(() => bodies.put(bytes(Number(size))))
  const get = await measured(() => read(put.result.id))
  console.log(JSON.stringify({ length: get.result, put: put.peak - before, get: get.peak - before }))
  await bodies.close()
  await postgres.close()`

it('a body of 256 MiB goes in and out with memory that does not grow with it', async () => {
  const { url } = await testDatabase()
  const folder = await mkdtemp(join(tmpdir(), 'baton-bodies-'))
  const size = 256 * 2 ** 20
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [
      '--input-type=module-typescript',
      '-e',
      program,
      url,
      folder,
      String(size),
    ])
    const { length, put, get } = JSON.parse(stdout) as { length: number; put: number; get: number }
    expect(length).toBe(size)
    // What the garbage collector lets pile up, and far from the 256 MiB of the body.
    expect(put).toBeLessThan(128 * 2 ** 20)
    expect(get).toBeLessThan(128 * 2 ** 20)
    console.log(
      `memory grew by ${(put / 2 ** 20).toFixed()} MiB putting, ${(get / 2 ** 20).toFixed()} MiB getting`,
    )
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}, 60_000)

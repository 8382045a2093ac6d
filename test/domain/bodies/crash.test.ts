import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { sha256 } from '../../../src/core/digest.ts'
import { createBodies } from '../../../src/domain/bodies/bodies.ts'
import { createDirectoryStore } from '../../../src/domain/bodies/stores/directory.ts'
import { createPostgres } from '../../../src/platform/postgres/postgres.ts'
import { testDatabase } from '../../support/databases.ts'

const source = (path: string): string => join(import.meta.dirname, '../../../src', path)
const points = 50

/** Puts bodies of all sizes without end, four at a time, and tells each id when it has its answer. */
const program = `
  import { randomBytes } from 'node:crypto'
  import { createSystemClock } from '${source('core/clock.ts')}'
  import { createBodies } from '${source('domain/bodies/bodies.ts')}'
  import { createDirectoryStore } from '${source('domain/bodies/stores/directory.ts')}'
  import { createPostgres } from '${source('platform/postgres/postgres.ts')}'
  import { createLog } from '${source('platform/log.ts')}'
  const [url, folder] = process.argv.slice(1)
  const clock = createSystemClock()
  const postgres = createPostgres({ url, max: 2, applicationName: 'crash', onError: () => undefined })
  const stores = ['a', 'b'].map((name) => createDirectoryStore({ root: folder + '/' + name, clock, name }))
  const bodies = createBodies({ stores, postgres, clock, log: createLog({ level: 'silent', process: 'test' }) })
  async function* bytes() {
    const size = Math.floor(10 ** (Math.random() * 6.5))
    for (let left = size; left > 0; left -= 65536) yield randomBytes(Math.min(left, 65536))
  }
  const client = async () => {
    for (;;) {
      const { id, copies } = await bodies.put(bytes())
      process.stdout.write(id + ' ' + copies + '\\n')
    }
  }
  await Promise.all([client(), client(), client(), client()])`

it(`a process that is killed at ${points} points of its puts leaves whole bodies only, and none that was answered is lost`, async () => {
  const { url } = await testDatabase()
  const folder = await mkdtemp(join(tmpdir(), 'baton-bodies-'))
  const clock = createSystemClock()
  const postgres = createPostgres({ url, max: 4, applicationName: 'crash test', onError: () => undefined })
  const stores = ['a', 'b'].map((name) => createDirectoryStore({ root: join(folder, name), clock, name }))
  const bodies = createBodies({ stores, postgres, clock, log: pino({ level: 'silent' }) })
  let answered = 0
  try {
    for (let point = 0; point < points; point++) {
      const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', program, url, folder], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      let told = ''
      child.stdout.on('data', (text: Buffer) => (told += text.toString()))
      await once(child.stdout, 'data')
      await clock.sleep(Math.random() * 40)
      child.kill('SIGKILL')
      await once(child, 'close')
      for (const line of told.split('\n').filter((each) => each.length === 66)) {
        const id = line.slice(0, 64)
        answered++
        expect(await bodies.repair(id)).toMatchObject({
          sound: ['a', 'b'],
          missing: [],
          bad: [],
          written: [],
        })
      }
      const { rows } = await postgres.query<{ id: string }>(`SELECT id FROM bodies WHERE stores <> '{}'`)
      for (const { id } of rows) {
        expect(sha256(Buffer.concat((await (await bodies.get(id)).stream.toArray()) as Buffer[]))).toBe(id)
      }
      // What has been looked at goes, so that the next round is quick.
      await postgres.query(`DELETE FROM bodies WHERE stores <> '{}'`)
    }
    const options = { retentionMs: 0, graceMs: 0, keepReferenced: async () => undefined, force: true }
    await bodies.upkeep.sweep(options)
    await bodies.upkeep.sweep(options)
    for (const store of ['a', 'b']) {
      expect(await readdir(join(folder, store, 'incoming'))).toEqual([])
      const left = await readdir(join(folder, store, 'bodies'), { recursive: true })
      expect(left.filter((name) => name.length > 64)).toEqual([])
    }
    expect(await bodies.upkeep.status()).toMatchObject({ bodies: 0 })
    expect((await postgres.query('SELECT FROM bodies')).rowCount).toBe(0)
    expect(answered).toBeGreaterThan(points)
  } finally {
    await bodies.close()
    await postgres.close()
    await rm(folder, { recursive: true, force: true })
  }
}, 120_000)

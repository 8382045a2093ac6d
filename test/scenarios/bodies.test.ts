import { createHash } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../src/core/clock.ts'
import { codeOf } from '../../src/core/errors.ts'
import { type Bodies, createBodies } from '../../src/domain/bodies/bodies.ts'
import { createDirectoryStore } from '../../src/domain/bodies/stores/directory.ts'
import { createWebdavStore } from '../../src/domain/bodies/stores/webdav.ts'
import { createPostgres, type Postgres } from '../../src/platform/postgres/postgres.ts'
import { testDatabase } from '../support/databases.ts'
import { hasNginx, type Nginx, startNginx } from '../support/nginx.ts'

const clock = createSystemClock()
const clients = 32
/** 1,000 bodies from 1 byte to 1 MB, evenly by magnitude, and some large ones up to 100 MB. */
const sizes = [
  ...Array.from({ length: 990 }, (_each, n) => Math.round(10 ** ((n * 6) / 989))),
  ...[2, 3, 5, 8, 8, 13, 21, 34, 55, 100].map((megabytes) => megabytes * 1_000_000),
].sort((a, b) => ((a * 7919) % 1_009) - ((b * 7919) % 1_009))

/** The bytes of body number `n`, in pieces, without ever holding all of a large one. */
function* bytesOf(n: number, size: number): Generator<Buffer> {
  const piece = Buffer.alloc(Math.min(size, 1_000_000), `body ${n} `)
  for (let at = 0; at < size; at += piece.length) yield piece.subarray(0, size - at)
}

async function* sourceOf(n: number, size: number): AsyncGenerator<Uint8Array> {
  yield* bytesOf(n, size)
}

function idOf(n: number, size: number): string {
  const hash = createHash('sha256')
  for (const piece of bytesOf(n, size)) hash.update(piece)
  return hash.digest('hex')
}

async function isRight(bodies: Bodies, id: string): Promise<boolean> {
  const hash = createHash('sha256')
  const { stream } = await bodies.get(id)
  for await (const chunk of stream as AsyncIterable<Buffer>) hash.update(chunk)
  return hash.digest('hex') === id
}

describe.runIf(hasNginx)('bodies in nginx and in a directory', () => {
  let nginx: Nginx
  let postgres: Postgres
  let bodies: Bodies
  let folder: string

  beforeAll(async () => {
    nginx = await startNginx()
    folder = await mkdtemp(join(tmpdir(), 'baton-bodies-'))
    const { url } = await testDatabase()
    postgres = createPostgres({ url, max: 10, applicationName: 'bodies scenario', onError: () => undefined })
    const stores = [
      createDirectoryStore({ root: folder, clock }),
      createWebdavStore({ url: nginx.url, clock, timeoutMs: 5_000, spoolFolder: folder }),
    ]
    bodies = createBodies({ stores, postgres, clock, log: pino({ level: 'silent' }), spoolFolder: folder })
  })
  afterAll(async () => {
    await bodies.close()
    await postgres.close()
    await nginx.stop()
    await rm(folder, { recursive: true })
  })

  it('are right or refused while nginx is killed and restarted, and none that had two copies lacks one', async () => {
    const two = new Set<string>()
    const outcomes: Record<string, number> = {}
    const count = (outcome: string): void => {
      outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
    }
    const queue = sizes.map((size, n) => ({ size, n }))
    let busy = true
    const client = async (): Promise<void> => {
      for (let next = queue.shift(); next; next = queue.shift()) {
        const { n, size } = next
        try {
          const { id, copies } = await bodies.put(sourceOf(n, size), { minCopies: n % 2 === 0 ? 2 : 1 })
          if (copies === 2) two.add(id)
          count(id === idOf(n, size) ? `put ${copies}` : 'WRONG ID')
        } catch (error) {
          count(`put ${codeOf(error)}`)
          // As it was told: again, a little later.
          queue.push(next)
          await clock.sleep(100 + Math.random() * 400)
        }
        const id = [...two][Math.floor(Math.random() * two.size)]
        if (id === undefined) continue
        try {
          count((await isRight(bodies, id)) ? 'get right' : 'GET WRONG')
        } catch (error) {
          count(`get ${codeOf(error)}`)
        }
      }
    }
    const trouble = async (): Promise<void> => {
      while (busy) {
        await clock.sleep(1_000)
        await nginx.kill()
        await clock.sleep(200)
        await nginx.start()
      }
    }
    const troubling = trouble()
    await Promise.all(Array.from({ length: clients }, client))
    busy = false
    await troubling
    await bodies.idle()
    console.log(JSON.stringify(outcomes))

    const typed = ['BODY_UNAVAILABLE', 'BODY_TIMEOUT', 'BODY_OVERLOADED']
    const allowed = [
      'put 1',
      'put 2',
      'get right',
      ...typed.map((code) => `put ${code}`),
      ...typed.map((code) => `get ${code}`),
    ]
    expect(Object.keys(outcomes).filter((outcome) => !allowed.includes(outcome))).toEqual([])
    // The other store is there all the time.
    expect(outcomes['get right']).toBeGreaterThan(900)
    expect(outcomes['put 2']).toBeGreaterThanOrEqual(sizes.length / 2)
    expect(outcomes['put 1'] ?? 0).toBeGreaterThan(0)

    await postgres.query('UPDATE body_repairs SET due_at = now()')
    for await (const { report } of bodies.upkeep.repairDue()) expect(report.failed).toEqual([])
    for (const id of two) {
      const report = await bodies.repair(id)
      expect(report).toMatchObject({ bad: [], missing: [], written: [], failed: [] })
      expect(report.sound).toHaveLength(2)
    }
    expect((await bodies.upkeep.status()).repairs).toMatchObject({ waiting: 0, lost: 0 })
  }, 180_000)
})

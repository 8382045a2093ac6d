import { randomBytes } from 'node:crypto'
import { tmpdir } from 'node:os'
import { pino } from 'pino'
import { expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { sha256 } from '../../../src/core/digest.ts'
import { codeOf } from '../../../src/core/errors.ts'
import { type Bodies, createBodies } from '../../../src/domain/bodies/bodies.ts'
import { createWebdavStore } from '../../../src/domain/bodies/stores/webdav.ts'
import { createPostgres } from '../../../src/platform/postgres/postgres.ts'
import { testDatabase } from '../../support/databases.ts'
import { startHostileStore } from '../../support/hostile-store.ts'

// 100,000 takes some minutes; the default is what a run of all tests can afford.
const requests = Number(process.env['HOSTILE_REQUESTS'] ?? 3_000)
const clients = 32
const refusals = ['BODY_CORRUPT', 'BODY_UNAVAILABLE', 'BODY_TIMEOUT', 'BODY_OVERLOADED']

it(`two hostile stores give no wrong byte in ${requests} requests`, async () => {
  const clock = createSystemClock()
  const { url } = await testDatabase()
  const postgres = createPostgres({ url, max: 8, applicationName: 'hostile', onError: () => undefined })
  const servers = [await startHostileStore(), await startHostileStore()]
  const stores = servers.map((server) =>
    createWebdavStore({
      url: server.url,
      clock,
      timeoutMs: 300,
      maxConnections: clients * 2,
      spoolFolder: tmpdir(),
      // Else most requests would never be sent.
      failures: Number.POSITIVE_INFINITY,
    }),
  )
  const log = pino({ level: 'silent' })
  const bodies = createBodies({ stores, postgres, clock, log, timeoutMs: 1_000, spoolFolder: tmpdir() })

  const known = new Map<string, Buffer>()
  for (let n = 0; n < 60; n++) {
    const bytes = randomBytes([10, 1_000, 1_000, 70_000, 1_200_000][n % 5] as number)
    const { id } = await bodies.put(chunksOf(bytes))
    known.set(id, bytes)
  }
  const ids = [...known.keys()]
  for (const server of servers) server.hostility = 0.3

  const outcomes = new Map<string, number>()
  let left = requests
  const client = async (): Promise<void> => {
    while (left-- > 0) {
      const outcome = await oneRequest(bodies, ids[Math.floor(Math.random() * ids.length)] as string, known)
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
    }
  }
  await Promise.all(Array.from({ length: clients }, client))
  for (const server of servers) server.hostility = 0
  await bodies.idle()

  const allowed = new Set(['right', 'rightly missing', 'put', ...refusals])
  expect([...outcomes.keys()].filter((outcome) => !allowed.has(outcome))).toEqual([])
  expect(outcomes.get('right') ?? 0).toBeGreaterThan(requests / 3)
  console.log(
    JSON.stringify({
      outcomes: Object.fromEntries(outcomes),
      faults: Object.fromEntries(servers[0]?.played ?? []),
    }),
  )
  // Once the stores are honest again nothing has been lost: what they said while they lied has harmed no body.
  for await (const _repaired of bodies.upkeep.repairDue());
  for (const id of ids) {
    await bodies.repair(id)
    const bytes = Buffer.concat((await (await bodies.get(id)).stream.toArray()) as Buffer[])
    expect(bytes.equals(known.get(id) as Buffer)).toBe(true)
  }
  await bodies.close()
  await postgres.close()
  for (const server of servers) await server.stop()
}, 900_000)

async function oneRequest(bodies: Bodies, id: string, known: Map<string, Buffer>): Promise<string> {
  const kind = Math.random()
  try {
    if (kind < 0.05) return await getMissing(bodies)
    if (kind < 0.08) return await putOne(bodies, known.get(id) as Buffer)
    const expected = known.get(id) as Buffer
    const start = kind < 0.5 ? Math.floor(Math.random() * expected.length) : 0
    const { stream } = await bodies.get(id, { range: { start } })
    const bytes = Buffer.concat((await stream.toArray()) as Buffer[])
    return bytes.equals(expected.subarray(start)) ? 'right' : `WRONG BYTES of ${id}`
  } catch (error) {
    return codeOf(error) ?? String(error)
  }
}

async function getMissing(bodies: Bodies): Promise<string> {
  try {
    await bodies.get(sha256(randomBytes(8)))
    return 'MADE UP A BODY'
  } catch (error) {
    return codeOf(error) === 'BODY_NOT_FOUND' ? 'rightly missing' : (codeOf(error) ?? String(error))
  }
}

async function putOne(bodies: Bodies, bytes: Buffer): Promise<string> {
  const { id } = await bodies.put(chunksOf(bytes))
  return id === sha256(bytes) ? 'put' : 'WRONG ID'
}

async function* chunksOf(bytes: Buffer): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536)
}

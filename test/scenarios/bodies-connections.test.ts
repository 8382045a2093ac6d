import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { pino } from 'pino'
import { expect, it } from 'vitest'
import { createSystemClock } from '../../src/core/clock.ts'
import { codeOf } from '../../src/core/errors.ts'
import { type Bodies, createBodies } from '../../src/domain/bodies/bodies.ts'
import { createDirectoryStore } from '../../src/domain/bodies/stores/directory.ts'
import { migrate } from '../../src/platform/postgres/migrate.ts'
import { createPostgres } from '../../src/platform/postgres/postgres.ts'
import { startPostgres } from '../support/servers.ts'

const clock = createSystemClock()
const processes = 5
const clientsEach = 40
const squatted = 30
const allowed = new Set(['put', 'got', 'DATABASE_OVERLOADED', 'BODY_OVERLOADED'])

it('with 10 connections for 200 clients of bodies no answer is wrong or waits for ever, and all is well soon after', async () => {
  const server = await startPostgres({ max_connections: String(squatted + 10) })
  await migrate(server.url)
  const folder = await mkdtemp(join(tmpdir(), 'baton-bodies-'))
  // What five processes of a site would have, each with a pool of its own: 35 connections wanted, 10 to be had.
  const sites = Array.from({ length: processes }, () => {
    const postgres = createPostgres({
      url: server.url,
      max: 7,
      applicationName: 'crowd',
      maxWaitMs: 3_000,
      onError: () => undefined,
    })
    const stores = ['a', 'b'].map((name) => createDirectoryStore({ root: join(folder, name), clock }))
    return { postgres, bodies: createBodies({ stores, postgres, clock, log: pino({ level: 'silent' }) }) }
  })

  const outcomes = new Map<string, number>()
  let longestMs = 0
  let served = 0
  let busy = true
  const client = async (bodies: Bodies): Promise<void> => {
    const ids: string[] = []
    while (busy) {
      const begunMs = clock.monotonicMs()
      const outcome = await exchange(bodies, ids)
      longestMs = Math.max(longestMs, clock.monotonicMs() - begunMs)
      outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
      if (outcome === 'put' || outcome === 'got') served++
      // What a client does who is told to come again in a second.
      else await clock.sleep(100 + Math.random() * 900)
    }
  }
  const perSecond = async (seconds: number): Promise<number> => {
    const before = served
    await clock.sleep(seconds * 1_000)
    return (served - before) / seconds
  }

  const squatters = await Promise.all(
    Array.from({ length: squatted }, async () => {
      const squatter = new pg.Client(server.url)
      await squatter.connect()
      return squatter
    }),
  )
  const clients = sites.flatMap(({ bodies }) => Array.from({ length: clientsEach }, () => client(bodies)))
  const limited = await perSecond(5)
  expect(outcomes.get('DATABASE_OVERLOADED') ?? 0).toBeGreaterThan(0)
  await Promise.all(squatters.map((squatter) => squatter.end()))
  await clock.sleep(5_000)
  outcomes.delete('DATABASE_OVERLOADED')
  const after = await perSecond(3)
  busy = false
  await Promise.all(clients)

  console.log(
    JSON.stringify({
      limited,
      after,
      longestMs: Math.round(longestMs),
      outcomes: Object.fromEntries(outcomes),
    }),
  )
  expect([...outcomes.keys()].filter((outcome) => !allowed.has(outcome))).toEqual([])
  expect(limited).toBeGreaterThan(0)
  // Half, since other tests may share the machine by now; that nobody is refused any more is the point.
  expect(after).toBeGreaterThan(limited * 0.5)
  expect(outcomes.get('DATABASE_OVERLOADED')).toBeUndefined()
  // A wait for a connection at each of three statements, and the work itself.
  expect(longestMs).toBeLessThan(12_000)

  for (const { bodies, postgres } of sites) {
    await bodies.close()
    await postgres.close()
  }
  await rm(folder, { recursive: true })
}, 120_000)

async function exchange(bodies: Bodies, ids: string[]): Promise<string> {
  try {
    const wanted =
      ids.length > 0 && Math.random() < 0.7 ? ids[Math.floor(Math.random() * ids.length)] : undefined
    if (wanted !== undefined) {
      const bytes = Buffer.concat((await (await bodies.get(wanted)).stream.toArray()) as Buffer[])
      return createHash('sha256').update(bytes).digest('hex') === wanted ? 'got' : 'WRONG BYTES'
    }
    const bytes = randomBytes(500)
    const { id } = await bodies.put(once(bytes))
    ids.push(id)
    return id === createHash('sha256').update(bytes).digest('hex') ? 'put' : 'WRONG ID'
  } catch (error) {
    return codeOf(error) ?? String(error)
  }
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

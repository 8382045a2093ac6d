import { pino } from 'pino'
import { createSystemClock } from '../../../src/core/clock.ts'
import { newId } from '../../../src/core/ids.ts'
import { createDigests } from '../../../src/domain/sync/digests.ts'
import {
  createFailOverEngine,
  type FailOverEngineOptions,
} from '../../../src/domain/sync/fail-over/engine.ts'
import { createFailOvers, type FailOvers } from '../../../src/domain/sync/fail-over/fail-overs.ts'
import { createLookOut, type LookOut } from '../../../src/domain/sync/fail-over/look-out.ts'
import type { OtherSite } from '../../../src/domain/sync/fail-over/other-site.ts'
import { createFailOverRows, type FailOverRows } from '../../../src/domain/sync/fail-over/rows.ts'
import { createSuccession, type Succession } from '../../../src/domain/sync/fail-over/succession.ts'
import { createTail } from '../../../src/domain/sync/fail-over/tail.ts'
import { createReceiver } from '../../../src/domain/sync/receiver.ts'
import { createSequencer } from '../../../src/domain/sync/sequencer.ts'
import { protocol } from '../../../src/domain/sync/wire.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import type { ReplicatedType } from '../../../src/platform/replication/replicated.ts'
import { createSite, type Site } from '../../../src/platform/replication/site.ts'
import { testDatabase } from '../../support/databases.ts'
import { atEndOfTest } from '../../support/processes.ts'

export const clock = createSystemClock()
const log = pino({ level: 'silent' })
export const version = '1.2.3'

/** One of two sites, without processes. */
export interface Half {
  name: string
  postgres: Postgres
  site: Site
  rows: FailOverRows
  receiver: ReturnType<typeof createReceiver>
}

export interface Pair {
  a: Half
  b: Half
  /** How b answers to a; a test may put something before it. */
  wire: OtherSite
  types: ReplicatedType[]
  /** A runner on a; through `postgres` when that is given. */
  engine(options?: Partial<FailOverEngineOptions>, half?: Half): ReturnType<typeof createFailOverEngine>
  failOvers(half: Half): FailOvers
  /** What a process on a does under the lease. */
  lookOut(postgres?: Postgres): LookOut
  /** Numbers something on the leader, and has the other site have it. */
  copyOne(from?: Half, to?: Half): Promise<void>
}

async function open(name: string, types: ReplicatedType[]): Promise<Half> {
  const { url } = await testDatabase()
  const postgres = createPostgres({ url, max: 6, applicationName: `site ${name}`, onError: () => undefined })
  atEndOfTest(() => postgres.close())
  const site = createSite({ postgres, clock })
  const digests = createDigests()
  const receiver = createReceiver({ postgres, site, types, digests, name, version, log })
  return { name, postgres, site, rows: createFailOverRows(postgres), receiver }
}

/** `a` leads, `b` is its replica and has all. */
export async function openPair(types: ReplicatedType[] = []): Promise<Pair> {
  const [a, b] = await Promise.all([open('a', types), open('b', types)])
  const { lineage, epoch } = await a.site.lead()
  if (lineage === null) throw new Error('no lineage')
  await a.postgres.query(`INSERT INTO sync_seeds (type, done) VALUES ('*', true)`)
  await b.site.follow({ lineage, epoch, leader: 'a' })
  await register(a, 'b')
  const wire = wireTo(a, b)
  const pair: Pair = {
    a,
    b,
    wire,
    types,
    engine: (options, half = a) => engineOf(pair, half, options),
    failOvers: (half) => failOversOf(pair, half),
    lookOut: (postgres = a.postgres) => lookOutOf(pair, postgres),
    copyOne: (from = a, to = b) => copyOne(from, to),
  }
  return pair
}

const register = (half: Half, name: string): Promise<unknown> =>
  half.postgres.query(
    `INSERT INTO replicas (name, url, key_sealed, policy) VALUES ($1, 'http://127.0.0.1:1', '', '{"*":"report"}')`,
    [name],
  )

function wireTo(from: Half, to: Half): OtherSite {
  const speak = async () => {
    const { lineage, epoch } = await from.site.read()
    return { protocol, lineage: lineage ?? '', epoch }
  }
  return {
    hello: async () => to.receiver.hello({ ...(await speak()), leader: from.name, look: true }),
    digest: async (shard, pos, digests) => to.receiver.digest({ ...(await speak()), shard, pos, digests }),
    promote: async (request) => {
      await to.site.promote(request)
    },
  }
}

const siteOn = (on: Postgres): Site => createSite({ postgres: on, clock })

function successionOf(pair: Pair, postgres: Postgres): Succession {
  const epoch = async (): Promise<number> => (await siteOn(postgres).read()).epoch
  return createSuccession({
    postgres,
    rows: createFailOverRows(postgres),
    siteOn,
    tail: createTail({ postgres, types: pair.types, epoch }),
    connectHeir: async (_name, { state, lostAfter }) => {
      const sender = { protocol, lineage: state.lineage, epoch: state.epoch }
      return {
        candidates: (shard, objects) => pair.b.receiver.candidates({ ...sender, lostAfter, shard, objects }),
        upload: async () => undefined,
      }
    },
    clock,
    log,
  })
}

function engineOf(pair: Pair, half: Half, options: Partial<FailOverEngineOptions> = {}) {
  const postgres = options.postgres ?? half.postgres
  return createFailOverEngine({
    postgres,
    rows: createFailOverRows(postgres),
    siteOn,
    sequencer: createSequencer({ postgres, types: pair.types }),
    digests: createDigests(),
    isSeeded: async () => true,
    connect: async (name) => (name === 'b' && half === pair.a ? pair.wire : undefined),
    succession: successionOf(pair, postgres),
    name: half.name,
    version,
    log,
    ...options,
  })
}

const lookOutOf = (pair: Pair, postgres: Postgres): LookOut =>
  createLookOut({
    engine: engineOf(pair, pair.a, { postgres }),
    succession: successionOf(pair, postgres),
    site: siteOn(postgres),
    replicas: async () => ['b'],
    connect: async () => pair.wire,
    clock,
    log,
    lookMs: 0,
    askMs: 0,
  })

function failOversOf(pair: Pair, half: Half): FailOvers {
  const { postgres, rows, name } = half
  return createFailOvers({ postgres, rows, siteOn, engine: engineOf(pair, half), name, clock })
}

async function copyOne(from: Half, to: Half): Promise<void> {
  const id = newId(clock.now())
  const { epoch } = await from.site.read()
  const values = [id, epoch, 'a'.repeat(64)]
  const insert = `INSERT INTO changes (type, id, shard, pos, epoch, kind, hash)
    SELECT 'job', $1, h.shard, h.pos, $2, 'upsert', $3`
  await from.postgres.query(`UPDATE change_heads SET pos = pos + 1 WHERE shard = 3`)
  await from.postgres.query(`${insert} FROM change_heads h WHERE h.shard = 3`, values)
  await to.postgres.query(`UPDATE sync_cursors SET pos = pos + 1 WHERE shard = 3`)
  await to.postgres.query(`${insert} FROM sync_cursors h WHERE h.shard = 3`, values)
}

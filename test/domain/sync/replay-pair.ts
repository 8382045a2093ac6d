import { pino } from 'pino'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createDigests } from '../../../src/domain/sync/digests.ts'
import { typesByName } from '../../../src/domain/sync/judge.ts'
import { createKeySeal } from '../../../src/domain/sync/key-seal.ts'
import { type Link, openLink, type SendingParts } from '../../../src/domain/sync/link.ts'
import { createReceiver } from '../../../src/domain/sync/receiver.ts'
import { createRemoteSite, type RemoteSite } from '../../../src/domain/sync/remote-site.ts'
import { retryDue } from '../../../src/domain/sync/repair.ts'
import { advance } from '../../../src/domain/sync/replay-shard.ts'
import type { Policies } from '../../../src/domain/sync/replica-rows.ts'
import { createReplicas, type Replicas } from '../../../src/domain/sync/replicas.ts'
import { createReread } from '../../../src/domain/sync/reread.ts'
import { createSeeding } from '../../../src/domain/sync/seeding.ts'
import { createSequencer } from '../../../src/domain/sync/sequencer.ts'
import { verify } from '../../../src/domain/sync/verify.ts'
import { createAuditLog } from '../../../src/platform/access/audit-log.ts'
import { createMetrics } from '../../../src/platform/metrics.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import type { ReplicatedType } from '../../../src/platform/replication/replicated.ts'
import { createSite } from '../../../src/platform/replication/site.ts'
import { createSiteClient } from '../../../src/platform/replication/site-client.ts'
import { createSyncRoutes } from '../../../src/runtime/web/sync-routes.ts'
import { type Harness, operator, startHarness } from '../../runtime/web/web-harness.ts'
import { testDatabase } from '../../support/databases.ts'
import { atEndOfTest } from '../../support/processes.ts'
import { createThings, thingType } from './things.ts'

export const clock = createSystemClock()
export const log = pino({ level: 'silent' })
export const secret = 'a-secret-of-both-sites-0123456789'
export const seal = createKeySeal(secret)

/** Makes the types of a site over its database. */
export type MakeTypes = (postgres: Postgres) => ReplicatedType[] | Promise<ReplicatedType[]>

/** A site with its web tier. */
export interface WebSite {
  postgres: Postgres
  harness: Harness
  url: string
  types: ReplicatedType[]
  /** What sends from here. */
  sending: SendingParts
  replicas: Replicas
  /** For sites that are opened outside of a test. */
  close(): Promise<void>
}

export const things: MakeTypes = async (postgres) => {
  await createThings(postgres)
  return [thingType()]
}

export async function openSite(name: string, makeTypes: MakeTypes = things): Promise<WebSite> {
  const { url: databaseUrl } = await testDatabase()
  const postgres = createPostgres({
    url: databaseUrl,
    max: 12,
    applicationName: `site ${name}`,
    onError: () => undefined,
  })
  const types = await makeTypes(postgres)
  const site = createSite({ postgres, clock })
  const sending: SendingParts = {
    postgres,
    site,
    types: typesByName(types),
    sequencer: createSequencer({ postgres, types }),
    name,
    clock,
    log,
    metrics: createMetrics(),
  }
  const replicas = createReplicas({
    ...sending,
    seal,
    connect: ({ url, keySealed }, signal) =>
      createRemoteSite(
        createSiteClient({ url, key: seal.open(keySealed) ?? '', clock, timeoutMs: 5_000 }),
        signal,
      ),
  })
  const receiver = createReceiver({
    postgres,
    site,
    types,
    digests: createDigests(),
    name,
    version: '1',
    log,
  })
  const harness = await startHarness({
    databaseUrl,
    // Nobody comes any more: a stop that waits for visitors would be most of a test's time.
    shutdownMs: 300,
    plugins: [createSyncRoutes({ replicas, receiver, audit: createAuditLog({ postgres }) })],
  })
  let closing: Promise<void> | undefined
  const close = (): Promise<void> => (closing ??= harness.close().then(() => postgres.close()))
  atEndOfTest(close)
  return { postgres, harness, url: harness.url, types, sending, replicas, close }
}

export interface ReplayPair {
  leader: WebSite
  replica: WebSite
  remote: RemoteSite
  /** A link of its own; over `remote` unless another one is given. */
  link(remote?: RemoteSite, policies?: Policies): Promise<Link>
  /** Numbers all, and sends all, once over every shard until nothing moves. */
  settle(link?: Link): Promise<void>
  verify(fromRows?: boolean): ReturnType<typeof verify>
}

/** `replica` follows `leader`, and has what was there before. */
export async function openReplayPair(makeTypes: MakeTypes = things): Promise<ReplayPair> {
  const [leader, replica] = await Promise.all([openSite('a', makeTypes), openSite('b', makeTypes)])
  await leader.replicas.put('b', { url: replica.url, key: operator })
  const remote = remoteOf(replica)
  const ending = new AbortController()
  atEndOfTest(async () => ending.abort())
  const link = (over = remote, policies: Policies = { '*': 'report' }): Promise<Link> =>
    openLink(leader.sending, { replica: 'b', policies, remote: over, signal: ending.signal })
  const settle = async (given?: Link): Promise<void> => {
    const { sequencer } = leader.sending
    await seed(leader)
    await sequencer.drain()
    const over = given ?? (await link())
    await Promise.all(
      (await sequencer.heads()).map(async (head, shard) => {
        while (await advance(over, shard, head));
      }),
    )
    await retryDue(over)
  }
  return {
    leader,
    replica,
    remote,
    link,
    settle,
    verify: async (fromRows = false) =>
      verify(await link(), verifying(leader), { fromRows, signal: ending.signal }),
  }
}

export const remoteOf = ({ url }: WebSite): RemoteSite =>
  createRemoteSite(createSiteClient({ url, key: operator, clock, timeoutMs: 10_000 }))

export const verifying = ({ postgres, types }: WebSite) => ({
  digests: createDigests(),
  reread: createReread({ postgres, types, clock }),
})

export async function seed({ postgres, types }: WebSite): Promise<void> {
  const seeding = createSeeding({ postgres, types })
  while (!(await seeding.step()));
}

/** What is there, by type and id, as the site itself reads it. */
export async function contentOf({ postgres, types }: WebSite): Promise<Map<string, string>> {
  const all = new Map<string, string>()
  for (const type of types) {
    const ids = await type.scan(undefined, 100_000, postgres)
    for (const [id, { content }] of await type.read(ids, postgres)) all.set(`${type.type} ${id}`, content)
  }
  return all
}

export async function quarantineOf({ postgres }: WebSite): Promise<{ id: string; kind: string }[]> {
  const { rows } = await postgres.query<{ id: string; kind: string }>(
    'SELECT id, kind FROM replica_quarantine ORDER BY kind, id',
  )
  return rows
}

/** All that waits in the quarantine is due now. */
export const makeDue = ({ postgres }: WebSite): Promise<unknown> =>
  postgres.query('UPDATE replica_quarantine SET due_at = now()')

/** Writes what no trigger sees and no fence refuses: somebody with a console. */
export const pastTheFence = ({ postgres }: WebSite, sql: string, values: unknown[] = []): Promise<unknown> =>
  postgres.transaction(async (client) => {
    await client.query(`SET LOCAL session_replication_role = 'replica'`)
    await client.query(sql, values)
  })

import { randomUUID } from 'node:crypto'
import { messageOf } from '../../core/errors.ts'
import type { Service } from '../../core/lifecycle.ts'
import { createDigests } from '../../domain/sync/digests.ts'
import { typesByName } from '../../domain/sync/judge.ts'
import { createKeySeal } from '../../domain/sync/key-seal.ts'
import { createSyncLease } from '../../domain/sync/lease.ts'
import type { SendingParts } from '../../domain/sync/link.ts'
import { REPLICA_KEY_UNREADABLE } from '../../domain/sync/protocol-errors.ts'
import { createSyncPrune } from '../../domain/sync/prune.ts'
import { createReceiver } from '../../domain/sync/receiver.ts'
import { createRemoteSite, type RemoteSite } from '../../domain/sync/remote-site.ts'
import { createReplay, type Superseded } from '../../domain/sync/replay.ts'
import type { ReplicaRow } from '../../domain/sync/replica-rows.ts'
import { createReplicas, type Replicas } from '../../domain/sync/replicas.ts'
import { createReread } from '../../domain/sync/reread.ts'
import { createSeeding } from '../../domain/sync/seeding.ts'
import { createSequencer } from '../../domain/sync/sequencer.ts'
import {
  createSyncService as createService,
  type SyncServiceOptions,
} from '../../domain/sync/sync-service.ts'
import { createTrashBin, type TrashBin } from '../../domain/sync/trash-bin.ts'
import type { AuditLog } from '../../platform/access.ts'
import type { Config } from '../../platform/config/config.ts'
import { createPostgres, type Postgres } from '../../platform/postgres/postgres.ts'
import type { ReplicatedType } from '../../platform/replication/replicated.ts'
import { createSite } from '../../platform/replication/site.ts'
import { createSiteClient } from '../../platform/replication/site-client.ts'
import { createSyncRoutes } from '../../runtime/web/sync-routes.ts'
import { readVersion } from '../cli.ts'
import type { Ground } from '../compose.ts'
import { openGround } from './producer.ts'
import { createReplicatedTypes } from './replicated.ts'
import { createSiteBodies } from './site-bodies.ts'
import { syncConnections } from './sync-connections.ts'

type Parts = Pick<Ground, 'config' | 'clock' | 'log' | 'metrics' | 'postgres' | 'releasers'>

/** Of a pool of its own: what is applied takes longer than what clients ask for, and must not stand in their way. */
const queryTimeoutMs = 60_000

function openSyncPostgres({ postgres, log, releasers }: Parts): Postgres {
  const opened = createPostgres({
    url: postgres.url,
    max: syncConnections,
    applicationName: 'baton sync',
    queryTimeoutMs,
    onError: (error) => log.warn({ reason: messageOf(error) }, 'a connection of replication has trouble'),
  })
  releasers.add('sync', () => opened.close())
  return opened
}

const siteName = (config: Config): string => config.site ?? 'main'

function createConnect({ config, clock }: Parts) {
  const seal = createKeySeal(config.secret)
  return {
    seal,
    connect: (
      { url, keySealed }: Pick<ReplicaRow, 'url' | 'keySealed'>,
      signal?: AbortSignal,
    ): RemoteSite => {
      const key = seal.open(keySealed)
      if (key === undefined) throw REPLICA_KEY_UNREADABLE({ url })
      return createRemoteSite(createSiteClient({ url, key, clock }), signal)
    },
  }
}

function createSending(parts: Parts, postgres: Postgres, types: readonly ReplicatedType[]): SendingParts {
  const { config, clock, log, metrics } = parts
  return {
    postgres,
    site: createSite({ postgres, clock }),
    types: typesByName(types),
    sequencer: createSequencer({
      postgres,
      types,
      onError: (error, object) =>
        log.error(
          { ...object, reason: messageOf(error) },
          'An object cannot be read, so that no replica gets it',
        ),
    }),
    name: siteName(config),
    clock,
    log,
    metrics,
  }
}

export interface SyncServiceWish {
  onSuperseded?(seen: Superseded): Promise<void>
  /** Steps that whoever holds the lease takes besides. */
  alongside?: NonNullable<SyncServiceOptions['alongside']>
}

/**
 * Numbers, sends, verifies and prunes while this process holds the lease; for the worker process, also in standby. On a
 * site that is alone it only looks now and then whether it still is.
 */
export function createSyncService(
  parts: Parts,
  types: readonly ReplicatedType[],
  { onSuperseded = async () => undefined, alongside = [] }: SyncServiceWish = {},
): Service {
  const { clock, log } = parts
  const postgres = openSyncPostgres(parts)
  const sending = createSending(parts, postgres, types)
  const seeding = createSeeding({ postgres, types })
  const replay = createReplay({
    ...sending,
    connect: createConnect(parts).connect,
    digests: createDigests(),
    reread: createReread({ postgres, types, clock }),
    isSeeded: () => seeding.isDone(),
    onSuperseded,
  })
  return createService({
    // These two on the process's own connections: a site that is alone opens no others, and the lease waits behind nothing.
    site: createSite({ postgres: parts.postgres, clock }),
    lease: createSyncLease({
      postgres: parts.postgres,
      clock,
      holder: randomUUID(),
      onError: (error) =>
        log.warn({ reason: messageOf(error) }, 'the lease of replication could not be renewed'),
    }),
    sequencer: sending.sequencer,
    seeding,
    replay,
    prune: createSyncPrune({ postgres }),
    alongside,
    clock,
    log,
  })
}

export interface SyncWebParts {
  types: readonly ReplicatedType[]
  audit: AuditLog
  /** As of a receiver. */
  onSuperseded(): void
}

/** What operators ask of replicas; its routes, and those that a leader speaks to. */
export function createSyncWeb(
  ground: Parts,
  { types, audit, onSuperseded }: SyncWebParts,
): { plugin: ReturnType<typeof createSyncRoutes>; replicas: Replicas } {
  const postgres = openSyncPostgres(ground)
  const sending = createSending(ground, postgres, types)
  const replicas = createReplicas({ ...sending, ...createConnect(ground), looks: ground.postgres })
  const plugin = createSyncRoutes({
    replicas,
    receiver: createReceiver({
      postgres,
      site: sending.site,
      types,
      digests: createDigests(),
      name: sending.name,
      version: readVersion(),
      log: ground.log,
      onSuperseded,
    }),
    audit,
  })
  return { plugin, replicas }
}

/** Opens the stores for one command, and closes them when it is done. */
export async function withReplicas<T>(
  config: Config,
  work: (tools: { replicas: Replicas; trash: TrashBin; postgres: Postgres }) => Promise<T>,
): Promise<T> {
  const ground = await openGround({ ...config, logLevel: 'error' })
  try {
    const bodies = createSiteBodies(ground)
    ground.releasers.add('bodies', () => bodies.close())
    const sending = createSending(ground, ground.postgres, createReplicatedTypes(ground, bodies))
    const replicas = createReplicas({ ...sending, ...createConnect(ground) })
    return await work({ replicas, trash: createTrashBin(sending), postgres: ground.postgres })
  } finally {
    await ground.releasers.release()
  }
}

import { createDigests } from '../../domain/sync/digests.ts'
import { createFailOverEngine } from '../../domain/sync/fail-over/engine.ts'
import { createFailOvers, type FailOvers } from '../../domain/sync/fail-over/fail-overs.ts'
import { createLookOut, type LookOut } from '../../domain/sync/fail-over/look-out.ts'
import { createHeir, createOtherSite, type OtherSite } from '../../domain/sync/fail-over/other-site.ts'
import { createFailOverRows } from '../../domain/sync/fail-over/rows.ts'
import { createSuccession } from '../../domain/sync/fail-over/succession.ts'
import { createTail } from '../../domain/sync/fail-over/tail.ts'
import { createKeySeal } from '../../domain/sync/key-seal.ts'
import { findReplica, listReplicas } from '../../domain/sync/replica-rows.ts'
import { createSeeding } from '../../domain/sync/seeding.ts'
import { createSequencer } from '../../domain/sync/sequencer.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import type { ReplicatedType } from '../../platform/replication/replicated.ts'
import { createSite, type Site, type SiteState } from '../../platform/replication/site.ts'
import { createSiteClient, type SiteClient } from '../../platform/replication/site-client.ts'
import { readVersion } from '../cli.ts'
import type { Ground } from '../compose.ts'

type Parts = Pick<Ground, 'config' | 'postgres' | 'clock' | 'log'>

/** What operators ask for, and what brings it on; of the same parts in web, worker and command. */
export function createFailOverParts(parts: Parts, types: readonly ReplicatedType[]) {
  const { config, postgres, clock, log } = parts
  const name = config.site ?? 'main'
  const rows = createFailOverRows(postgres)
  const siteOn = (on: Postgres): Site => createSite({ postgres: on, clock })
  const site = siteOn(postgres)
  const seal = createKeySeal(config.secret)

  const clientOf = async (replica: string): Promise<SiteClient | undefined> => {
    const row = await findReplica(postgres, replica)
    const key = row && seal.open(row.keySealed)
    if (row && key === undefined) log.error({ replica }, 'its key was sealed with another BATON_SECRET')
    return row && key !== undefined ? createSiteClient({ url: row.url, key, clock }) : undefined
  }
  const connect = async (replica: string, state: SiteState): Promise<OtherSite | undefined> => {
    const client = await clientOf(replica)
    return client && createOtherSite(client, speakerOf(name, state))
  }
  const succession = createSuccession({
    postgres,
    rows,
    siteOn,
    tail: createTail({ postgres, types, epoch: async () => (await site.read()).epoch }),
    connectHeir: async (replica, { state, lostAfter }) => {
      const client = await clientOf(replica)
      return client && createHeir(client, speakerOf(name, state), lostAfter)
    },
    clock,
    log,
  })
  const seeding = createSeeding({ postgres, types })
  const engine = createFailOverEngine({
    postgres,
    rows,
    siteOn,
    sequencer: createSequencer({ postgres, types }),
    digests: createDigests(),
    isSeeded: () => seeding.isDone(),
    connect,
    succession,
    name,
    version: readVersion(),
    log,
  })
  const failOvers: FailOvers = createFailOvers({ postgres, rows, siteOn, engine, name, clock })
  const lookOut: LookOut = createLookOut({
    engine,
    succession,
    site,
    replicas: async () => (await listReplicas(postgres)).map((each) => each.name),
    connect,
    clock,
    log,
  })
  return { failOvers, lookOut }
}

const speakerOf = (name: string, { lineage, epoch }: SiteState) => ({ name, lineage: lineage ?? '', epoch })

import type { Clock } from '../../core/clock.ts'
import type { FailOvers } from '../../domain/sync/fail-over/fail-overs.ts'
import type { Config } from '../../platform/config/config.ts'
import { createFailOverParts } from './fail-over.ts'
import { openGround } from './producer.ts'
import { createReplicatedTypes } from './replicated.ts'
import { createSiteBodies } from './site-bodies.ts'

export interface FailOverTools {
  failOvers: FailOvers
  /** This site's name. */
  name: string
  /** When this replica last wrote what its leader sent. */
  heardAt(): Promise<Date | undefined>
  clock: Clock
}

/** Opens the stores for one command, and closes them when it is done. */
export async function withFailOvers<T>(
  config: Config,
  work: (tools: FailOverTools) => Promise<T>,
): Promise<T> {
  const ground = await openGround({ ...config, logLevel: 'error' })
  try {
    const { postgres, clock, releasers } = ground
    const bodies = createSiteBodies(ground)
    releasers.add('bodies', () => bodies.close())
    const { failOvers } = createFailOverParts(ground, createReplicatedTypes(ground, bodies))
    const heardAt = async (): Promise<Date | undefined> => {
      const { rows } = await postgres.query<{ at: Date | null }>(
        'SELECT max(at) AS at FROM sync_cursors WHERE pos > 0',
      )
      return rows[0]?.at ?? undefined
    }
    return await work({ failOvers, name: config.site ?? 'main', heardAt, clock })
  } finally {
    await ground.releasers.release()
  }
}

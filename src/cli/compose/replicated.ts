import type { Bodies } from '../../domain/bodies/bodies.ts'
import { createReplicatedBody } from '../../domain/bodies/replicated-body.ts'
import { createReplicatedDevice } from '../../domain/push/replicated-device.ts'
import { createReplicatedPush } from '../../domain/push/replicated-push.ts'
import { createReplicatedStates } from '../../domain/state/replicated-states.ts'
import { createReplicatedJob } from '../../platform/queues/replicated-job.ts'
import { createApplyingPostgres } from '../../platform/replication/applying.ts'
import type { ReplicatedType } from '../../platform/replication/replicated.ts'
import type { Ground } from '../compose.ts'
import { createSiteBodies } from './site-bodies.ts'

/**
 * All that sites copy from each other; what others refer to comes first. Opens nothing yet.
 *
 * @throws BODY_STORE_INVALID
 */
export function createReplicatedTypes(ground: Ground, bodies: Bodies): ReplicatedType[] {
  const { config, postgres, clock, log, releasers } = ground
  const arriving = createSiteBodies({ config, postgres: createApplyingPostgres(postgres), clock, log })
  releasers.add('arriving bodies', () => arriving.close())
  return [
    createReplicatedBody({ postgres, bodies, arriving }),
    createReplicatedStates(),
    createReplicatedDevice(),
    createReplicatedPush(),
    createReplicatedJob(),
  ]
}

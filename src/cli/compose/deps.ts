import type { Deps, Enqueue } from '../../../jobs/deps.ts'
import { messageOf } from '../../core/errors.ts'
import { createAcceptance } from '../../platform/queues/accept.ts'
import { createEnqueueIn } from '../../platform/queues/enqueue-in.ts'
import { assertFits, type Registry } from '../../platform/queues/registry.ts'
import type { Ground } from '../compose.ts'
import { createSiteBodies } from './site-bodies.ts'
import { createAdministration } from './state.ts'

/** What jobs are given. A domain that jobs need is made here and added to jobs/deps.ts. */
export function createDeps(ground: Ground, registry: Registry): Deps {
  const { postgres, clock, log, releasers } = ground
  const bodies = createSiteBodies(ground)
  releasers.add('bodies', () => bodies.close())
  const { states, close } = createAdministration({ databaseUrl: postgres.url, clock, log })
  releasers.add('states', close)
  const enqueue = createEnqueue(ground, registry)
  const enqueueIn = createEnqueueIn({ ...ground, registry })
  return { postgres, bodies, states, clock, log, enqueue, enqueueIn }
}

function createEnqueue(ground: Ground, registry: Registry): Enqueue {
  const { log } = ground
  const acceptance = createAcceptance({
    ...ground,
    onError: (error) =>
      log.warn({ reason: messageOf(error) }, 'the queue is away; the reconciler adds it later'),
  })
  return async (name, payload, options = {}) => {
    const job = registry.get(name)
    assertFits(registry.validate(name, payload))
    const [accepted] = await acceptance.accept([{ job, payload, ...options }])
    return accepted?.id ?? ''
  }
}

import type { Service } from '../../core/lifecycle.ts'
import type { Registry } from '../../platform/queues/registry.ts'
import type { Ground } from '../compose.ts'

/** What brings in work by itself: one process of the cluster at a time does each, by a lock in Postgres. */
export function createIntake(_ground: Ground, _registry: Registry): Service[] {
  return []
}

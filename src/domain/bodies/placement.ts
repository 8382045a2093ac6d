import { createHash } from 'node:crypto'
import type { BodyStore } from './body-store.ts'

/**
 * The stores in the order in which they should have a body: rendezvous hashing, so that a store that is added or
 * taken away moves only the bodies that it wins or held.
 */
export function orderFor(id: string, stores: readonly BodyStore[]): BodyStore[] {
  const weighted = stores.map((store) => ({ store, weight: weightOf(id, store.name) }))
  weighted.sort((a, b) => (a.weight < b.weight ? 1 : -1))
  return weighted.map(({ store }) => store)
}

const weightOf = (id: string, name: string): string =>
  createHash('sha256').update(`${name}\n${id}`).digest('hex')

import { randomUUID } from 'node:crypto'
import { Type } from 'typebox'
import type { Migration } from '../src/domain/state/migration/migration.ts'
import { defineJob, done, snooze } from '../src/platform/queues/job.ts'
import type { Deps } from './deps.ts'

const lookMs = 1_000
/** A run gives its place to others now and then: a migration waits for people, and is watched for a day. */
const sliceMs = 600_000

/**
 * Works on a migration of device states (docs/protocols/state-migration.md). Enqueue it several times and as many
 * workers share the migration. All that it knows is in the migration's rows, so a killed run costs the device that it
 * was on.
 */
export const stateMigration = defineJob({
  name: 'state-migration',
  queue: 'states',
  payload: Type.Object({ migration: Type.String() }),
  attempts: 20,
  backoff: { baseMs: 1_000, maxMs: 60_000 },
  timeoutMs: 3_600_000,
  async run({ migration }, deps: Deps, ctx) {
    const { states, clock } = deps
    const untilMs = clock.monotonicMs() + sliceMs
    for await (const view of ctx.iterate(looks(deps, migration, ctx.signal))) {
      ctx.progress({ phase: view.phase, counts: view.counts, etaMs: view.etaMs })
      if (clock.monotonicMs() > untilMs) break
    }
    const { phase } = await states.get(migration)
    return isOver(phase) ? done({ phase }) : snooze(0)
  },
})

const isOver = (phase: Migration['phase']): boolean =>
  ['scanned', 'done', 'rolled-back', 'cancelled'].includes(phase)

/** Works, and looks once a second. Whoever stops looking stops the work. */
async function* looks({ states, clock }: Deps, id: string, signal: AbortSignal) {
  const stop = new AbortController()
  let ended = false
  const working = states
    .work(id, { engine: `job ${randomUUID()}`, signal: AbortSignal.any([signal, stop.signal]) })
    .finally(() => {
      ended = true
    })
  // It is awaited below; until then a failure must not count as unhandled.
  const settled = working.catch(() => undefined)
  try {
    while (!ended) {
      yield await states.view(id)
      await Promise.race([settled, clock.sleep(lookMs, signal)])
    }
    await working
  } finally {
    stop.abort()
    await settled
  }
}

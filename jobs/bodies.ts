import { Type } from 'typebox'
import type { Postgres } from '../src/platform/postgres/postgres.ts'
import { defineJob, done } from '../src/platform/queues/job.ts'
import type { Deps } from './deps.ts'

const hourMs = 3_600_000
const payload = Type.Object({})
/** One at a time: the next one comes by the clock anyway. */
const alone = { payload, dedupe: () => 'one', attempts: 1, timeoutMs: 24 * hourMs }

/** Brings bodies that lack a copy back to two, those that wait for longest first. */
export const repairBodies = defineJob({
  ...alone,
  name: 'bodies-repair',
  schedule: { cron: '*/5 * * * *', payload: {} },
  async run(_payload, { bodies }: Deps, ctx) {
    const found = { repaired: 0, failed: 0, lost: 0 }
    for await (const { report } of ctx.iterate(() => bodies.upkeep.repairDue())) {
      if (report.lost) found.lost++
      else if (report.failed.length > 0) found.failed++
      else found.repaired++
      ctx.progress(found)
    }
    return done(found)
  },
})

/** Reads a portion of all copies each hour, all of them within 30 days. Its place is kept in the database. */
export const scrubBodies = defineJob({
  ...alone,
  name: 'bodies-scrub',
  payload: Type.Object({ limit: Type.Optional(Type.Integer({ minimum: 1 })) }),
  schedule: { cron: '17 * * * *', payload: {} },
  async run({ limit }, { bodies }: Deps, ctx) {
    const found = { checked: 0, bytes: 0, bad: 0, missing: 0, lost: 0 }
    const options = { signal: ctx.signal, ...(limit !== undefined && { limit }) }
    for await (const { size, report } of ctx.iterate(() => bodies.upkeep.scrub(options))) {
      found.checked++
      found.bytes += size
      found.bad += report.bad.length
      found.missing += report.missing.length
      found.lost += report.lost ? 1 : 0
      ctx.progress(found)
    }
    const { canary } = (await bodies.upkeep.status()).scrub
    if (canary === 'overdue')
      ctx.log.error('the scrubber has not found the bad copy that it planted a day ago')
    return done({ ...found, canary })
  },
})

/** After a store was added to BODY_STORES, or marked with #drain: wishes for the moves, which the repairs then do. */
export const rebalanceBodies = defineJob({
  ...alone,
  name: 'bodies-rebalance',
  schedule: { cron: '41 3 * * *', payload: {} },
  async run(_payload, { bodies }: Deps, ctx) {
    let wished = 0
    for await (const _id of ctx.iterate(() => bodies.upkeep.rebalance())) ctx.progress(++wished)
    return done({ wished })
  },
})

/**
 * Removes bodies that nothing has referred to for BODY_RETENTION_MS, in two steps a day apart. A job refers to a body
 * when the id stands anywhere in its payload, checkpoint or result, as long as the job is kept; a schedule and a push
 * do by their payload.
 */
export const sweepBodies = defineJob({
  ...alone,
  name: 'bodies-sweep',
  payload: Type.Object({ force: Type.Optional(Type.Boolean()) }),
  schedule: { cron: '23 4 * * *', payload: {} },
  async run({ force = false }, { bodies, postgres }: Deps, ctx) {
    const report = await bodies.upkeep.sweep({
      keepReferenced: (candidates) => keepReferenced(postgres, candidates, ctx.signal),
      force,
      signal: ctx.signal,
    })
    for (const reason of report.tripped)
      ctx.log.error({ reason }, 'a sweep of bodies was too large to go on by itself')
    for (const reason of report.failed) ctx.log.warn({ reason }, 'a store of bodies could not be swept')
    return done(report)
  },
})

export const bodyJobs = [repairBodies, scrubBodies, rebalanceBodies, sweepBodies]

/**
 * Counted anew by reading, since a counter that is one off removes what somebody needs. Any 64 hex digits count: a
 * word that only looks like an id keeps a body too long, which is the harmless mistake. Of a longer run both ends do,
 * since an escape such as `\b` may stand before an id. A payload that lies in a body
 * itself names in its row what it speaks of.
 */
export async function keepReferenced(
  postgres: Postgres,
  candidates: Set<string>,
  signal?: AbortSignal,
): Promise<void> {
  for (const place of places) {
    for (let after = place.first; candidates.size > 0; ) {
      signal?.throwIfAborted()
      const page = await readPage(postgres, place, after)
      for (const id of page.ids) candidates.delete(id)
      if (!page.last) break
      after = page.last
    }
  }
}

/** A table whose rows may name bodies, walked along its primary key. */
interface Place {
  table: string
  key: string[]
  types: string[]
  first: string[]
  text: string
}

const firstId = '00000000-0000-0000-0000-000000000000'
const places: Place[] = [
  {
    table: 'jobs',
    key: ['id'],
    types: ['uuid'],
    first: [firstId],
    text: 'concat(payload, checkpoint, result)',
  },
  { table: 'schedules', key: ['name'], types: ['text'], first: [''], text: 'payload::text' },
  {
    table: 'pushes',
    key: ['id', 'device'],
    types: ['uuid', 'text'],
    first: [firstId, ''],
    text: 'payload::text',
  },
]

async function readPage(
  postgres: Postgres,
  { table, key, types, text }: Place,
  after: string[],
): Promise<{ last: string[] | null; ids: string[] }> {
  const keys = key.join(', ')
  const backwards = key.map((each) => `${each} DESC`).join(', ')
  const places = types.map((type, index) => `$${index + 1}::${type}`).join(', ')
  const { rows } = await postgres.query<{ last: string[] | null; ids: string[] | null }>({
    name: `bodies-references-${table}`,
    text: `WITH page AS MATERIALIZED (
        SELECT ${keys}, ${text} AS text FROM ${table} WHERE (${keys}) > (${places}) ORDER BY ${keys} LIMIT 2000)
      SELECT (SELECT ARRAY[${key.map((each) => `${each}::text`).join(', ')}] FROM page ORDER BY ${backwards} LIMIT 1) AS last,
        (SELECT array_agg(DISTINCT body) FROM page, regexp_matches(text, '[0-9a-f]{64,}', 'g') AS found,
          unnest(ARRAY[left(found[1], 64), right(found[1], 64)]) AS body) AS ids`,
    values: after,
  })
  return { last: rows[0]?.last ?? null, ids: rows[0]?.ids ?? [] }
}

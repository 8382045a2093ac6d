import { randomUUID } from 'node:crypto'
import type { Clock } from '../../../core/clock.ts'
import { messageOf } from '../../../core/errors.ts'
import type { Log } from '../../../platform/log.ts'
import type { Postgres } from '../../../platform/postgres/postgres.ts'
import type { BodyStore } from '../body-store.ts'
import type { RepairReport } from '../repair.ts'
import type { Repaired, ScrubOptions } from '../upkeep.ts'

export interface ScrubParts {
  stores: readonly BodyStore[]
  postgres: Postgres
  clock: Clock
  log: Log
  repair(id: string): Promise<RepairReport>
  put(source: AsyncIterable<Uint8Array>): Promise<{ id: string }>
}

const hourMs = 3_600_000
const weekMs = 168 * hourMs
const fewest = 100
const page = 100

interface Candidate {
  id: string
  size: number
}

/**
 * Bodies are read in the order of their ids, which is a random one, so a pass needs no list and its place is one
 * id. A body that never was read goes before, once: what is wrong with a new disk shows on new bodies.
 */
export async function* scrub(parts: ScrubParts, options: ScrubOptions = {}): AsyncGenerator<Repaired> {
  await plantCanary(parts, options.canaryMs ?? weekMs)
  let left = options.limit ?? (await portion(parts.postgres))
  for (const next of [unread, onward]) {
    while (left > 0 && !options.signal?.aborted) {
      const candidates = await next(parts.postgres, Math.min(left, page), options.settledMs ?? hourMs)
      if (candidates.length === 0) break
      for (const candidate of candidates) {
        yield await check(parts, candidate)
        left--
        if (next === onward) await advance(parts.postgres, candidate.id)
        await pause(parts.clock, candidate, options)
        if (options.signal?.aborted) return
      }
    }
  }
}

/** What one run an hour needs to read everything within 30 days. */
async function portion(postgres: Postgres): Promise<number> {
  const { rows } = await postgres.query<{ rows: number }>(
    `SELECT greatest(reltuples, 0)::int AS rows FROM pg_class WHERE oid = 'bodies'::regclass`,
  )
  return Math.max(fewest, Math.ceil((rows[0]?.rows ?? 0) / (30 * 24)))
}

async function unread(postgres: Postgres, limit: number, settledMs: number): Promise<Candidate[]> {
  // Those that could not be checked have a wish, and are looked after by the repairs.
  const { rows } = await postgres.query<{ id: string; size: string }>(
    `SELECT id, size FROM bodies WHERE checked_at IS NULL AND created_at <= now() - $2 * interval '1 ms'
       AND stores <> '{}' AND NOT EXISTS (SELECT FROM body_repairs WHERE body = id)
     ORDER BY created_at DESC LIMIT $1`,
    [limit, settledMs],
  )
  return rows.map(({ id, size }) => ({ id, size: Number(size) }))
}

/** Nothing: the pass is over. The next call begins another. */
async function onward(postgres: Postgres, limit: number): Promise<Candidate[]> {
  const { rows } = await postgres.query<{ id: string; size: string }>(
    `SELECT id, size FROM bodies WHERE stores <> '{}' AND id > coalesce((SELECT cursor FROM body_scrub), '')
     ORDER BY id LIMIT $1`,
    [limit],
  )
  if (rows.length === 0) {
    await postgres.query('UPDATE body_scrub SET cursor = NULL, passes = passes + 1, pass_began_at = now()')
  }
  return rows.map(({ id, size }) => ({ id, size: Number(size) }))
}

const advance = async (postgres: Postgres, id: string): Promise<void> => {
  await postgres.query('UPDATE body_scrub SET cursor = $1', [id])
}

async function check({ repair, postgres, log }: ScrubParts, { id, size }: Candidate): Promise<Repaired> {
  const report = await repair(id).catch((error: unknown) => {
    log.warn({ body: id, error: messageOf(error) }, 'could not scrub a body')
    return failedReport(messageOf(error))
  })
  const { bad, missing, lost, sound, failed } = report
  // What the repair could not finish is wished for, so that it is not met again by `unread` at once.
  if (failed.length > 0 || sound.length === 0) {
    await postgres.query(
      `INSERT INTO body_repairs (body, reason, error, due_at)
       SELECT id, 'a scrub could not finish', $2, now() + interval '1 minute' FROM bodies WHERE id = $1
       ON CONFLICT (body) DO NOTHING`,
      [id, failed.join('; ')],
    )
  }
  await postgres.query(
    `UPDATE body_scrub SET checked = checked + 1, bad = bad + $2, missing = missing + $3, lost = lost + $4,
       ran_at = now(),
       canary_found_at = CASE WHEN canary = $1 AND $2 + $3 > 0 THEN now() ELSE canary_found_at END`,
    [id, bad.length, missing.length, lost ? 1 : 0],
  )
  return { id, size, report }
}

const failedReport = (reason: string): RepairReport => ({
  sound: [],
  bad: [],
  missing: [],
  written: [],
  trimmed: [],
  failed: [reason],
  lost: false,
})

async function pause(clock: Clock, { size }: Candidate, options: ScrubOptions): Promise<void> {
  const bytesPerSecond = options.bytesPerSecond ?? 20 * 1_048_576
  const ms = (2 * size * 1_000) / bytesPerSecond
  if (ms >= 1) await clock.sleep(ms, options.signal)
}

/** Spoils one copy of a body of its own. As long as the last one was not found, no other is planted. */
async function plantCanary({ stores, postgres, put, log }: ScrubParts, everyMs: number): Promise<void> {
  const { rows } = await postgres.query<{ due: boolean }>(
    `SELECT canary IS NULL OR (canary_found_at IS NOT NULL AND canary_planted_at <= now() - $1 * interval '1 ms') AS due
     FROM body_scrub`,
    [everyMs],
  )
  if (!rows[0]?.due) return
  const text = `A body that the scrubber has spoilt to see whether it finds it. ${randomUUID()}\n`
  const { id } = await put(once(text))
  const store = stores[Math.floor(Math.random() * Math.min(2, stores.length))]
  if (!store) return
  await spoil(store, id, text)
  await postgres.query(
    'UPDATE body_scrub SET canary = $1, canary_planted_at = now(), canary_found_at = NULL',
    [id],
  )
  log.info({ body: id, store: store.name }, 'planted a bad copy for the scrubber to find')
}

/** A store that verifies what it takes refuses wrong bytes; there the copy is taken away instead. */
async function spoil(store: BodyStore, id: string, text: string): Promise<void> {
  const bytes = Buffer.from(text.toUpperCase())
  try {
    await store.put(id, { size: bytes.length, open: () => once(bytes) })
  } catch {
    await store.remove(id)
  }
}

async function* once(content: string | Uint8Array): AsyncGenerator<Uint8Array> {
  yield Buffer.from(content)
}

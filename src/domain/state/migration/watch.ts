import { messageOf } from '../../../core/errors.ts'
import { openVersion } from '../store.ts'
import { copyDevice } from './copy-device.ts'
import { gateOf, type Migration } from './migration.ts'
import { type Bench, hasLost } from './round.ts'
import { addLines } from './rows/devices.ts'
import { createStormGuard, type StormGuard } from './storm-guard.ts'

/** Step 11 of the protocol, kept by the leader from one look to the next. */
export interface Watch {
  /** One look at both sides. @returns how long to wait before the next, ms */
  look(migration: Migration): Promise<number>
}

export function createWatch(bench: Bench): Watch {
  const { clock, source, target } = bench
  const guard = createStormGuard(bench.migrations.database)
  /** What was seen of the source last: without a change there no straggler can be. */
  let sourceActivity: string | undefined
  /** The fingerprint of each changed device at its last inspection, so that it is inspected once a change. */
  const inspected = new Map<string, string>()

  /** Of the devices that changed since the look before, those that lack something. */
  const findLost = async (migration: Migration): Promise<string[]> => {
    const lost: string[] = []
    const seen: string[] = []
    for await (const survey of target.survey(new Map(), bench.signal)) {
      seen.push(survey.bucket)
      const now = new Map(survey.devices.map((each) => [each.device, each.fingerprint]))
      for (const device of await bench.surveys.changed(migration.id, 'target', survey)) {
        const fingerprint = now.get(device) ?? ''
        if (inspected.get(device) === fingerprint) continue
        inspected.set(device, fingerprint)
        if (await hasLost(bench, migration.id, device)) lost.push(device)
      }
    }
    return [...lost, ...(await bench.surveys.unseen(migration.id, seen))]
  }

  const judge = async (migration: Migration): Promise<void> => {
    const lost = await findLost(migration)
    if (lost.length === 0) return
    const storm = await guard.miss(migration.id, lost)
    if (!storm) return
    await target.setVersion(gateOf(migration.id))
    bench.log.error({ migration: migration.id, ...storm }, 'a storm: the gate of the target is closed')
  }

  const findStragglers = async (migration: Migration): Promise<void> => {
    const activity = await source.activity()
    if (activity === sourceActivity) return
    for await (const survey of source.survey(new Map(), bench.signal)) {
      for (const device of await bench.surveys.changed(migration.id, 'source', survey)) {
        await bringStraggler(bench, migration.id, device)
      }
    }
    sourceActivity = activity
  }

  return {
    look: async (migration) => {
      const startedAt = clock.monotonicMs()
      await findStragglers(migration)
      // Baton's own store counts the requests themselves, in the process that answers them.
      if (migration.storm && !migration.storm.exact) await settle(bench, guard, migration)
      else if (target.kind !== 'postgres' && (!migration.storm || migration.admitted !== undefined))
        await judge(migration)
      if (migration.admitted !== undefined) await admit(bench, migration)
      // A look at large tables takes long; it may take a sixth of the time.
      return Math.max(500, 5 * (clock.monotonicMs() - startedAt))
    },
  }
}

/** The gate is closed and time does not press: look at every device, so that the choice is made on true numbers. */
async function settle(bench: Bench, guard: StormGuard, { id }: Migration): Promise<void> {
  const lost: string[] = []
  const seen: string[] = []
  let wrote = 0
  for await (const survey of bench.target.survey(new Map(), bench.signal)) {
    seen.push(survey.bucket)
    wrote += (await bench.surveys.changed(id, 'target', survey)).size
    for (const { device } of survey.devices) {
      if (await hasLost(bench, id, device)) lost.push(device)
    }
  }
  const gone = await bench.surveys.unseen(id, seen)
  await guard.settle(id, [...lost, ...gone], wrote)
}

/**
 * A heartbeat that outlived the drain wrote to the source. While the device is untouched in the target the write
 * is carried over; otherwise the target holds, and a line says so.
 */
async function bringStraggler(bench: Bench, id: string, device: string): Promise<void> {
  const { database } = bench.migrations
  const { rows } = await database.query<{
    target_fingerprint: string | null
    source_fingerprint: string | null
  }>(
    `SELECT target_fingerprint, source_fingerprint FROM state_migration_devices WHERE migration = $1 AND device = $2`,
    [id, device],
  )
  const now = await bench.target.snapshot(device, true)
  if (now.fingerprint !== (rows[0]?.target_fingerprint ?? '')) {
    const name = Buffer.from(device)
    const line = {
      device,
      name,
      reason: 'changed-on-both-sides',
      held: true,
      size: 0,
      sha256: undefined,
      key: undefined,
    }
    await addLines(database, id, [line])
    return
  }
  try {
    const { source: from, target: to, limit, signal } = bench
    const tools = { from, to, fresh: true, inspect: true, limit, signal }
    const copied = await copyDevice(tools, { device, keep: new Set() })
    await database.query(
      `INSERT INTO state_migration_devices
              (migration, device, bucket, status, source_fingerprint, target_fingerprint, states, bytes, digest, landmarks)
       VALUES ($1, $2, right($2, 1) || '/' || left(right($2, 2), 1), 'moved', $3, $4, $5, $6, $7, $8)
       ON CONFLICT (migration, device) DO UPDATE
          SET status = 'moved', source_fingerprint = $3, target_fingerprint = $4, states = $5, bytes = $6, digest = $7,
              landmarks = $8, verified_at = now()`,
      [id, device, copied.from, copied.to, copied.states, copied.bytes, copied.digest, copied.landmarks],
    )
    bench.log.info({ migration: id, device }, 'a late write to the source was carried over')
  } catch (error) {
    bench.log.warn({ migration: id, device, reason: messageOf(error) }, 'a late write was not carried over')
  }
}

/** Lets the next portion in when the one before went well for its time. */
async function admit(bench: Bench, migration: Migration): Promise<void> {
  const { target, migrations } = bench
  const { id, options } = migration
  const parts = migration.admitted ?? 0
  const { rows } = await migrations.database.query<{ since: number }>(
    'SELECT (extract(epoch FROM clock_timestamp() - admitted_at) * 1000)::float8 AS since FROM state_migrations WHERE id = $1',
    [id],
  )
  const since = rows[0]?.since ?? 0
  const due = parts === 0 || since >= options.admitEveryMs
  const next = due ? Math.min(100, parts + options.admitParts) : parts
  if (due && parts >= 100) {
    await target.setVersion(openVersion)
    await migrations.advance(id, ['watching'], { admitted: null, note: 'all phones are let in again' })
    return
  }
  if (due && !(await migrations.advance(id, ['watching'], { admitted: next, stamps: ['admitted_at'] })))
    return
  if (target.admit) await target.admit(next)
  else await target.setVersion(isOpenNow(due ? 0 : since, next) ? openVersion : gateOf(id))
}

/** Z-Push's gate knows no devices: it is open for that part of each ten seconds. Phones come back spread over minutes. */
const cycleMs = 10_000
const isOpenNow = (sinceMs: number, parts: number): boolean => sinceMs % cycleMs < (cycleMs * parts) / 100

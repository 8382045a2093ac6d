import type { Clock } from '../../../core/clock.ts'
import { codeOf, messageOf } from '../../../core/errors.ts'
import type { Log } from '../../../platform/log.ts'
import {
  STATE_DEVICE_BUSY,
  STATE_SOURCE_UNREADABLE,
  STATE_STORE_FULL,
  STATE_TARGET_READ_ONLY,
  STATE_UNEQUAL,
} from '../errors.ts'
import { lacks } from '../inspect/landmarks.ts'
import { troubleOf } from '../scan.ts'
import { keyText } from '../state-key.ts'
import type { BucketSurvey, MovableStore } from '../store.ts'
import { copyDevice, lineOf } from './copy-device.ts'
import { syncLinks } from './links.ts'
import type { DeviceMark, DeviceRow, Direction, Migration } from './migration.ts'
import type { Migrations } from './migrations.ts'
import type { RateLimit } from './rate-limit.ts'
import type { Figures } from './rows/figures.ts'
import type { Surveys } from './rows/surveys.ts'

/** What every step of a migration works with. */
export interface Bench {
  migrations: Migrations
  surveys: Surveys
  figures: Figures
  source: MovableStore
  target: MovableStore
  clock: Clock
  log: Log
  limit: RateLimit
  /** Devices copied at once by this engine. */
  concurrency: number
  /** Aborts when the engine is to stop. */
  signal: AbortSignal
  /** Before each change of a gate. @throws MIGRATION_LEAD_LOST when another engine leads by now */
  assertLeading(id: string): Promise<void>
}

export interface RoundOptions {
  direction: Direction
  /** Look at the stores as they are now, not a second ago: for the last round. */
  fresh: boolean
  /**
   * Back after a storm: of a device that lacks something on the target, nothing is removed from the source. What the
   * target lost must not be lost there as well; an older counter too much does no harm.
   */
  merge?: boolean
}

/**
 * Steps 3 to 5 of the protocol: look, copy what differs, bring the links to the same.
 *
 * @returns how many devices differed
 */
export async function runRound(bench: Bench, migration: Migration, options: RoundOptions): Promise<number> {
  const differing = await survey(bench, migration.id, options.direction)
  await copyPending(bench, migration.id, options)
  await awaitPending(bench, migration.id, options)
  const links = await syncLinks(bench, migration.id, options.direction)
  await bench.migrations.advance(migration.id, [migration.phase], { nextRound: true, links })
  return differing
}

/** @returns how many devices differ from what was verified */
async function survey(bench: Bench, id: string, direction: Direction): Promise<number> {
  const side = direction === 'out' ? 'source' : 'target'
  const known = await bench.surveys.marks(id, side)
  const seen: string[] = []
  let differing = 0
  for await (const each of bench[side].survey(known, bench.signal)) {
    seen.push(each.bucket)
    if (!each.changed) continue
    if (direction === 'out') await saveStrays(bench, id, each)
    differing += await bench.surveys.save(id, side, each)
  }
  bench.signal.throwIfAborted()
  return differing + (await bench.surveys.saveMissing(id, side, seen))
}

async function saveStrays(bench: Bench, id: string, { bucket, strays }: BucketSurvey): Promise<void> {
  const known = await bench.surveys.knownStrays(id, bucket)
  if (known.size === 0 && strays.length === 0) return
  const fresh = strays.filter((stray) => !known.has(stray.name.toString('latin1')))
  const lines = []
  for (const stray of fresh) lines.push(lineOf(await troubleOf(bench.source, stray)))
  await bench.surveys.saveStrays(
    id,
    bucket,
    lines,
    strays.map((stray) => stray.name),
  )
}

/** Claims and copies until there is nothing to be had. Any engine may call it, at any time. */
export async function copyPending(bench: Bench, id: string, options: RoundOptions): Promise<void> {
  const lane = async (): Promise<void> => {
    while (!bench.signal.aborted) {
      if (!(await bench.migrations.claim(id, (row) => turn(bench, id, row, options)))) return
    }
  }
  await Promise.all(Array.from({ length: bench.concurrency }, lane))
}

/** Waits for what other engines hold, and copies what they drop. */
async function awaitPending(bench: Bench, id: string, options: RoundOptions): Promise<void> {
  while (!bench.signal.aborted && (await bench.figures.pending(id)) > 0) {
    await bench.clock.sleep(100, bench.signal)
    if ((await bench.migrations.get(id)).wanted === 'cancel') return
    await copyPending(bench, id, options)
  }
  bench.signal.throwIfAborted()
}

const most = 5

/** One device's turn. What concerns it alone ends in its mark; what concerns all is thrown. */
async function turn(bench: Bench, id: string, row: DeviceRow, options: RoundOptions): Promise<DeviceMark> {
  const { direction, fresh } = options
  const out = direction === 'out'
  const [from, to] = out ? [bench.source, bench.target] : [bench.target, bench.source]
  try {
    const keep = out ? new Set<string>() : await keptKeys(bench, id, row.device, options.merge ?? false)
    const { limit, signal } = bench
    const copied = await copyDevice({
      from,
      to,
      device: row.device,
      fresh,
      keep,
      inspect: out,
      limit,
      signal,
    })
    const { states, bytes, digest, users, landmarks, quarantine } = copied
    return {
      status: copied.from === '' ? 'removed' : 'moved',
      sourceFingerprint: out ? copied.from : copied.to,
      targetFingerprint: out ? copied.to : copied.from,
      states,
      bytes,
      digest,
      users,
      landmarks,
      ...(out ? { quarantine } : {}),
    }
  } catch (error) {
    if (bench.signal.aborted || concernsAll(error)) throw error
    bench.log.warn({ migration: id, device: row.device, code: codeOf(error) }, 'a device was not copied')
    return failedMark(row, error)
  }
}

/** States of the source that a copy back leaves alone: those that were never moved, and after a storm what was lost. */
async function keptKeys(bench: Bench, id: string, device: string, merge: boolean): Promise<Set<string>> {
  const keep = await bench.figures.heldKeys(id, device)
  if (!merge || !(await hasLost(bench, id, device))) return keep
  for (const { key } of await bench.source.list(device)) keep.add(keyText(key))
  return keep
}

/** Whether something is missing that the device had when it was moved and that a phone in good order never loses. */
export async function hasLost(bench: Bench, id: string, device: string): Promise<boolean> {
  const landmarks = await bench.figures.landmarks(id, device)
  if (landmarks.length === 0) return false
  const entries = await bench.target.list(device)
  return lacks(
    landmarks,
    entries.map(({ key }) => key),
  )
}

/** The store as a whole, not this device: going on would fail a thousand times. */
const concernsAll = (error: unknown): boolean =>
  STATE_STORE_FULL.is(error) || STATE_TARGET_READ_ONLY.is(error) || !concernsDevice(error)

const concernsDevice = (error: unknown): boolean =>
  STATE_DEVICE_BUSY.is(error) ||
  STATE_UNEQUAL.is(error) ||
  STATE_SOURCE_UNREADABLE.is(error) ||
  // Postgres: a value that does not fit, a constraint, a conflict with another transaction.
  /^(?:22|23|40)/.test(codeOf(error) ?? '')

function failedMark(row: DeviceRow, error: unknown): DeviceMark {
  const final = row.tries + 1 >= most
  return {
    status: final ? 'failed' : 'pending',
    states: 0,
    bytes: 0,
    users: [],
    landmarks: [],
    error: messageOf(error),
    retryAfterMs: final ? 0 : 100 * 2 ** row.tries,
  }
}

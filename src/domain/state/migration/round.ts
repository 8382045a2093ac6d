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
import {
  type CopiedDevice,
  type CopyTools,
  copyDevice,
  copyTogether,
  type DeviceCopy,
  lineOf,
} from './copy-device.ts'
import { syncLinks } from './links.ts'
import type { DeviceMark, DeviceRow, Direction, Migration, QuarantineLine } from './migration.ts'
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
  // What was looked at is copied while the rest is looked at.
  let looking = true
  const surveying = survey(bench, migration.id, options.direction).finally(() => {
    looking = false
  })
  surveying.catch(() => undefined)
  while (looking && !bench.signal.aborted) {
    await copyPending(bench, migration.id, options)
    await Promise.race([surveying, bench.clock.sleep(20, bench.signal)])
  }
  const differing = await surveying
  await copyPending(bench, migration.id, options)
  await awaitPending(bench, migration.id, options)
  const links = await syncLinks(bench, migration.id, options.direction)
  await bench.migrations.advance(migration.id, [migration.phase], { nextRound: true, links })
  return differing
}

/** Devices of surveys that are saved in one transaction. */
const savedTogether = 2_000

/** @returns how many devices differ from what was verified */
async function survey(bench: Bench, id: string, direction: Direction): Promise<number> {
  const side = direction === 'out' ? 'source' : 'target'
  const known = await bench.surveys.marks(id, side)
  const seen: string[] = []
  let differing = 0
  let waiting: BucketSurvey[] = []
  let devices = 0
  const save = async (): Promise<void> => {
    const surveys = waiting
    waiting = []
    devices = 0
    if (surveys.length === 0) return
    if (direction === 'out') await saveStrays(bench, id, surveys)
    differing += await bench.surveys.save(id, side, surveys)
  }
  for await (const each of bench[side].survey(known, bench.signal)) {
    seen.push(each.bucket)
    if (!each.changed) continue
    waiting.push(each)
    devices += each.devices.length + each.strays.length
    if (devices >= savedTogether || waiting.length >= 200) await save()
  }
  bench.signal.throwIfAborted()
  await save()
  return differing + (await bench.surveys.saveMissing(id, side, seen))
}

async function saveStrays(bench: Bench, id: string, surveys: BucketSurvey[]): Promise<void> {
  const buckets = surveys.map((each) => each.bucket)
  const known = await bench.surveys.knownStrays(id, buckets)
  const strays = surveys.flatMap(({ bucket, strays: all }) => all.map((stray) => ({ bucket, stray })))
  if (known.size === 0 && strays.length === 0) return
  const names = new Set(strays.map(({ stray }) => stray.name.toString('latin1')))
  const gone = [...known].filter((name) => !names.has(name)).map((name) => Buffer.from(name, 'latin1'))
  const lines: (QuarantineLine & { bucket: string })[] = []
  for (const { bucket, stray } of strays) {
    if (known.has(stray.name.toString('latin1'))) continue
    lines.push({ ...lineOf(await troubleOf(bench.source, stray)), bucket })
  }
  await bench.surveys.saveStrays(id, buckets, lines, gone)
}

/** Devices that are copied together at most, and for about how long, ms: what a killed engine has in hand. */
const together = 64
const handMs = 200

/** Claims and copies until there is nothing to be had. Any engine may call it, at any time. */
export async function copyPending(bench: Bench, id: string, options: RoundOptions): Promise<void> {
  const { clock, migrations, signal } = bench
  const lane = async (): Promise<void> => {
    // With a rate that makes each device slow it stays at one.
    let size = 1
    while (!signal.aborted) {
      const startedAt = clock.monotonicMs()
      if (!(await migrations.claim(id, size, (rows) => turn(bench, id, rows, options)))) return
      const quick = clock.monotonicMs() - startedAt < handMs
      size = Math.max(1, Math.min(together, quick ? size * 2 : Math.floor(size / 2)))
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

/** The turn of some devices. What concerns one alone ends in its mark; what concerns all is thrown. */
async function turn(
  bench: Bench,
  id: string,
  rows: DeviceRow[],
  options: RoundOptions,
): Promise<Map<string, DeviceMark>> {
  const out = options.direction === 'out'
  const [from, to] = out ? [bench.source, bench.target] : [bench.target, bench.source]
  const { limit, signal } = bench
  const tools: CopyTools = { from, to, fresh: options.fresh, inspect: out, limit, signal }
  const copies: DeviceCopy[] = []
  for (const { device } of rows) {
    const keep = out ? new Set<string>() : await keptKeys(bench, id, device, options.merge ?? false)
    copies.push({ device, keep })
  }
  const done = await tryTogether(bench, tools, copies)
  const marks = new Map<string, DeviceMark>()
  for (const [index, copy] of copies.entries()) {
    const row = rows[index]
    const copied = done.get(copy.device)
    if (copied) marks.set(copy.device, markOf(copied, out))
    else if (row) marks.set(copy.device, await single(bench, tools, copy, row))
  }
  return marks
}

/** Empty when one of them does not let the others pass: then each is tried alone. */
async function tryTogether(
  bench: Bench,
  tools: CopyTools,
  copies: DeviceCopy[],
): Promise<Map<string, CopiedDevice>> {
  if (copies.length < 2) return new Map()
  try {
    return await copyTogether(tools, copies)
  } catch (error) {
    if (bench.signal.aborted || concernsAll(error)) throw error
    return new Map()
  }
}

async function single(bench: Bench, tools: CopyTools, copy: DeviceCopy, row: DeviceRow): Promise<DeviceMark> {
  try {
    return markOf(await copyDevice(tools, copy), tools.inspect)
  } catch (error) {
    if (bench.signal.aborted || concernsAll(error)) throw error
    bench.log.warn({ device: row.device, code: codeOf(error) }, 'a device was not copied')
    return failedMark(row, error)
  }
}

function markOf(copied: CopiedDevice, out: boolean): DeviceMark {
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
}

const most = 5

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

import { messageOf } from '../../core/errors.ts'
import type { Log } from '../../platform/log.ts'
import type { BodyStore } from './body-store.ts'
import type { BodyRow, Catalog } from './catalog.ts'
import { type DeliverOptions, findBody, verifiedBytes } from './deliver.ts'
import { BODY_CORRUPT, BODY_NOT_FOUND } from './errors.ts'
import { orderFor } from './placement.ts'

export interface RepairOptions extends Pick<DeliverOptions, 'clock' | 'timeoutMs'> {
  /** All stores, also those that take no new bodies. */
  stores: readonly BodyStore[]
  /** Those that take new bodies. */
  active: readonly BodyStore[]
  catalog: Catalog
  copies: number
  log: Log
}

/** What a repair found and did, by store names. */
export interface RepairReport {
  sound: string[]
  /** Taken into quarantine. */
  bad: string[]
  /** Had none. */
  missing: string[]
  /** Written anew. */
  written: string[]
  /** Freed of a copy that was one too many, or in the wrong place. */
  trimmed: string[]
  /** No sound copy is left anywhere. */
  lost: boolean
  /** Stores that could not be asked or written, with the reason. */
  failed: string[]
}

type CopyState = 'sound' | 'missing' | 'bad' | 'unknown'

/**
 * Reads every copy of a body to its end, takes bad ones into quarantine, and writes what is missing from a sound
 * one, so that the copies lie where they should. Harmless to repeat and to run twice at once: it writes right bytes
 * over right bytes, and a quarantine looks at what it has taken before it keeps it. A body without a sound copy is
 * reported, and its wish stays.
 */
export async function repair(options: RepairOptions, id: string): Promise<RepairReport> {
  const wish = await options.catalog.wishOf(id)
  const report = emptyReport()
  const body = await findOrNone(options.catalog, id)
  if (!body) return report
  const wanted = orderFor(id, options.active).slice(0, options.copies)
  await inspect(options, body, { report, wanted })
  if (report.sound.length > 0) await rewrite(options, body, { report, wanted })
  report.lost = report.sound.length === 0 && report.failed.length === 0
  if (report.lost) options.log.error({ body: id, bad: report.bad }, 'no sound copy of a body is left')
  const whole = report.sound.length >= options.copies
  // While nothing sound is left the row keeps its stores: where it was is all that is known.
  const gone = [...report.missing, ...report.bad].filter((name) => !report.sound.includes(name))
  await options.catalog.fulfil(id, {
    wish: whole ? wish : undefined,
    added: report.sound,
    removed: report.sound.length > 0 ? gone : [],
    checked: whole && report.failed.length === 0,
  })
  if (!whole && wish !== undefined) {
    await options.catalog.postpone(id, wish, report.lost ? 'no sound copy is left' : report.failed.join('; '))
  }
  if (whole && wanted.every(({ name }) => report.sound.includes(name)))
    await trim(options, id, { report, wanted })
  return report
}

const emptyReport = (): RepairReport => ({
  sound: [],
  bad: [],
  missing: [],
  written: [],
  trimmed: [],
  failed: [],
  lost: false,
})

interface Inspection {
  report: RepairReport
  /** Where the copies should lie. */
  wanted: BodyStore[]
}

async function findOrNone(catalog: Catalog, id: string): Promise<BodyRow | undefined> {
  try {
    return await findBody(catalog, id)
  } catch (error) {
    if (BODY_NOT_FOUND.is(error)) return undefined
    throw error
  }
}

/** Fills the report with what each store has. */
async function inspect(options: RepairOptions, body: BodyRow, { report, wanted }: Inspection): Promise<void> {
  const asked = options.stores.filter((store) => body.stores.includes(store.name) || wanted.includes(store))
  report.failed.push(...body.stores.filter((name) => options.stores.every((store) => store.name !== name)))
  for (const store of asked) {
    const state = await stateOf(options, store, body, report)
    if (state === 'sound') report.sound.push(store.name)
    // A store that never had it does not lack it: the body is only to move there.
    if (state === 'missing' && body.stores.includes(store.name)) report.missing.push(store.name)
    if (state === 'bad') {
      report.bad.push(store.name)
      options.log.error(
        { body: body.id, store: store.name },
        'a bad copy of a body was taken into quarantine',
      )
    }
  }
}

async function stateOf(
  options: RepairOptions,
  store: BodyStore,
  body: BodyRow,
  report: RepairReport,
): Promise<CopyState> {
  try {
    if (await isSound(options, store, body)) return 'sound'
    // It may have been rewritten between the two looks, and be sound by now.
    if (await store.quarantine(body.id)) return 'bad'
    return (await isSound(options, store, body)) ? 'sound' : 'unknown'
  } catch (error) {
    if (BODY_NOT_FOUND.is(error)) return 'missing'
    report.failed.push(messageOf(error))
    return 'unknown'
  }
}

/** @throws whatever keeps the copy from being read */
async function isSound(options: RepairOptions, store: BodyStore, body: BodyRow): Promise<boolean> {
  try {
    const copy = { ...body, stores: [store.name] }
    const whole = { start: 0, end: body.size }
    const reading = { ...options, stores: [store], onSuspect: () => undefined }
    for await (const _chunk of verifiedBytes(reading, copy, whole));
    return true
  } catch (error) {
    if (BODY_CORRUPT.is(error)) return false
    throw error
  }
}

/** Writes the copies that are missing where they should lie, and to the next in order when that fails. */
async function rewrite(options: RepairOptions, body: BodyRow, { report, wanted }: Inspection): Promise<void> {
  const good = options.stores.filter((store) => report.sound.includes(store.name))
  const recorded = { ...body, stores: good.map(({ name }) => name) }
  const reading = { ...options, stores: good, onSuspect: () => undefined }
  const source = {
    size: body.size,
    open: () => verifiedBytes(reading, recorded, { start: 0, end: body.size }),
  }
  for (const store of orderFor(body.id, options.active)) {
    if (report.sound.includes(store.name)) continue
    if (report.sound.length >= options.copies && !wanted.includes(store)) continue
    try {
      await store.put(body.id, source)
      report.sound.push(store.name)
      report.written.push(store.name)
    } catch (error) {
      report.failed.push(messageOf(error))
    }
  }
}

/** Copies beyond those where they should lie. Each goes under the row's lock, and not soon after a put. */
async function trim(options: RepairOptions, id: string, { report, wanted }: Inspection): Promise<void> {
  const surplus = options.stores.filter(
    (store) => report.sound.includes(store.name) && !wanted.includes(store),
  )
  for (const store of surplus) {
    const removed = await options.catalog.withdraw(id, store.name, () => store.remove(id))
    if (removed) report.trimmed.push(store.name)
  }
  report.sound = report.sound.filter((name) => !report.trimmed.includes(name))
}

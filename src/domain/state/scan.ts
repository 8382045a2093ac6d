import { createHash } from 'node:crypto'
import type { Clock } from '../../core/clock.ts'
import { createDeviceInspector } from './inspect/inspector.ts'
import { kindOf, printable, type Severity, type Trouble } from './inspect/troubles.ts'
import type { ScanSummary, ShownTrouble } from './migration/migration.ts'
import type { BucketSurvey, Link, MovableStore, Stray } from './store.ts'
import { refuses as sqlRefuses } from './stores/zpush-sql/checks.ts'

export interface ScanReport {
  place: string
  kind: string
  version: string
  /** Devices with states that can be moved, their states and bytes; links of users; users. */
  devices: number
  states: number
  bytes: number
  largestBytes: number
  links: number
  users: number
  counts: Record<Severity, number>
  byCode: Record<string, number>
  /** The first ten thousand; `byCode` counts all. */
  troubles: Trouble[]
  scanMs: number
  /** How long a copy with its verification may take, ms. */
  estimateMs: number
}

export interface ScanOptions {
  store: MovableStore
  /** Where it is to go; Z-Push's SQL tables unless said. */
  target?: Pick<MovableStore, 'refuses'>
  clock: Clock
  signal?: AbortSignal
  onProgress?(done: { devices: number; states: number; bytes: number }): void
}

const troublesKept = 10_000

/**
 * The dry run: reads every name and every byte of a store and writes nothing at all.
 *
 * @throws STATE_SOURCE_UNREADABLE, STATE_VERSION_UNSUPPORTED: then nothing was counted
 */
export async function scanStore(options: ScanOptions): Promise<ScanReport> {
  const { store, clock } = options
  await store.check('source')
  const startedAt = clock.monotonicMs()
  const report = emptyReport(store, (await store.version()) ?? '2')
  const found: Found = { links: new Map(), linked: new Set() }
  const links: Link[] = []
  for await (const link of store.links()) {
    links.push(link)
    found.links.set(`${link.device} ${link.user.toString('latin1')}`, link)
  }
  for await (const survey of store.survey(new Map(), options.signal)) {
    options.signal?.throwIfAborted()
    await addSurvey(survey, report, found, options)
  }
  addLinks(links, report, found, options)
  report.scanMs = clock.monotonicMs() - startedAt
  report.estimateMs = estimate(report)
  return report
}

interface Found {
  /** By device and user. */
  links: Map<string, Link>
  /** Devices that have states. */
  linked: Set<string>
}

const emptyReport = (store: MovableStore, version: string): ScanReport => ({
  place: store.place,
  kind: store.kind,
  version,
  devices: 0,
  states: 0,
  bytes: 0,
  largestBytes: 0,
  links: 0,
  users: 0,
  counts: { note: 0, warning: 0, held: 0 },
  byCode: {},
  troubles: [],
  scanMs: 0,
  estimateMs: 0,
})

function addTrouble(report: ScanReport, trouble: Trouble): void {
  report.counts[kindOf(trouble.code).severity]++
  report.byCode[trouble.code] = (report.byCode[trouble.code] ?? 0) + 1
  if (report.troubles.length < troublesKept) report.troubles.push(trouble)
}

async function addSurvey(
  survey: BucketSurvey,
  report: ScanReport,
  found: Found,
  options: ScanOptions,
): Promise<void> {
  for (const stray of survey.strays) addTrouble(report, await troubleOf(options.store, stray))
  for (const { device } of survey.devices) {
    options.signal?.throwIfAborted()
    await addDevice(device, report, found, options)
    options.onProgress?.(report)
  }
}

/** A stray as a trouble, with the digest of what it holds. */
export async function troubleOf(store: MovableStore, stray: Stray): Promise<Trouble> {
  const { code, device, name, size } = stray
  const digest = await digestOf(store, stray)
  return { code, device, name, size, ...(digest ? { sha256: digest } : {}) }
}

async function digestOf(store: MovableStore, stray: Stray): Promise<string | undefined> {
  const source = kindOf(stray.code).severity === 'held' ? store.readStray(stray) : undefined
  if (!source) return undefined
  const hash = createHash('sha256')
  try {
    for await (const chunk of source) hash.update(chunk)
    return hash.digest('hex')
  } catch {
    return undefined
  }
}

async function addDevice(
  device: string,
  report: ScanReport,
  found: Found,
  { store, target }: ScanOptions,
): Promise<void> {
  const refuses = target ? target.refuses.bind(target) : sqlRefuses
  const inspector = createDeviceInspector(device, { serialized: store.serialized, refuses })
  const snapshot = await store.snapshot(device, false)
  report.devices++
  found.linked.add(device)
  for await (const state of snapshot.states()) {
    report.bytes += state.bytes.length
    report.largestBytes = Math.max(report.largestBytes, state.bytes.length)
    inspector.see(state)
    report.states++
  }
  const { troubles, users } = inspector.finish()
  for (const trouble of troubles) addTrouble(report, trouble)
  for (const user of users) {
    if (!found.links.has(`${device} ${user.toString('latin1')}`)) {
      addTrouble(report, { code: 'users-misses-device', device, name: user, size: 0 })
    }
  }
}

function addLinks(links: Link[], report: ScanReport, found: Found, { target }: ScanOptions): void {
  const refuses = target ? target.refuses.bind(target) : sqlRefuses
  report.links = links.length
  report.users = new Set(links.map((link) => link.user.toString('latin1'))).size
  for (const link of links) {
    const { user, device } = link
    const refused = refuses(link)
    if (refused) addTrouble(report, { code: refused, device, name: user, size: 0 })
    if (/[A-Z]/.test(user.toString('latin1'))) {
      addTrouble(report, { code: 'upper-case-user', device, name: user, size: 0 })
    }
    if (!found.linked.has(device)) {
      addTrouble(report, { code: 'users-lists-ghost', device, name: user, size: 0 })
    }
  }
}

/** A copy reads everything twice, and writes some thousands of states and some tens of MB a second. */
const estimate = ({ scanMs, states, bytes }: ScanReport): number =>
  Math.round(2 * scanMs + states / 6 + bytes / 60_000)

/** The report for people and machines, with at most so many troubles in full. */
export const summaryOf = (report: ScanReport, listed = 1_000): ScanSummary => ({
  devices: report.devices,
  states: report.states,
  bytes: report.bytes,
  links: report.links,
  users: report.users,
  estimateMs: report.estimateMs,
  counts: report.counts,
  byCode: report.byCode,
  troubles: report.troubles.slice(0, listed).map(shownTrouble),
})

export function shownTrouble(trouble: Trouble): ShownTrouble {
  const { severity, about, advice } = kindOf(trouble.code)
  const { code, device, size, sha256 } = trouble
  return {
    severity,
    code,
    device,
    name: printable(trouble.name),
    about,
    advice,
    size,
    ...(sha256 ? { sha256 } : {}),
  }
}

export type Phase =
  // A dry run, and its end.
  | 'scanning'
  | 'scanned'
  | 'copying'
  | 'ready'
  | 'cutting-over'
  | 'watching'
  | 'done'
  | 'rolling-back'
  | 'rolled-back'
  | 'cancelled'

export type Wanted = 'cut-over' | 'roll-back' | 'cancel' | 'finish'

/** Out: from the source to the target. Back: a roll-back. */
export type Direction = 'out' | 'back'

export interface MigrationOptions {
  /** At most so many states a second, of all engines together; no limit unless said. */
  statesPerSecond?: number
  bytesPerSecond?: number
  /** For how long the source must be without a change before the last delta, ms. */
  drainQuietMs: number
  /** For how long to wait for that before the source is opened again, ms. */
  drainMaxMs: number
  /** Pause between two rounds of deltas, ms. */
  deltaEveryMs: number
  /** How long the target and the source are watched after the cut-over, ms. */
  watchMs: number
  /** The part of the moved devices (0 to 1), and the least number, whose missing states close the gate. */
  stormShare: number
  stormMinimum: number
  /** How many parts of a hundred of the phones are let in at a time after a storm, and for how long, ms. */
  admitParts: number
  admitEveryMs: number
}

export const defaultOptions: MigrationOptions = {
  drainQuietMs: 2_000,
  drainMaxMs: 60_000,
  deltaEveryMs: 2_000,
  watchMs: 24 * 3_600_000,
  stormShare: 0.05,
  stormMinimum: 5,
  admitParts: 10,
  admitEveryMs: 30_000,
}

export interface Migration {
  id: string
  /** With its password: for opening, never for showing. */
  sourceUrl: string
  targetUrl: string
  phase: Phase
  wanted: Wanted | undefined
  paused: boolean
  options: MigrationOptions
  error: { code: string; message: string } | undefined
  /** The last thing of note, for people. */
  note: string | undefined
  /** What a dry run found (scan.ts), for people and machines. */
  scan: ScanSummary | undefined
  round: number
  links: number
  storm: Storm | undefined
  /** Parts of a hundred that are let in again after a storm; undefined when that is not going on. */
  admitted: number | undefined
  /** ms since the phase's steps, by the database's clock. */
  gateClosedForMs: number | undefined
  gateMs: number | undefined
  watchedMs: number | undefined
  backDevices: number | undefined
  createdAt: string
  cutOverAt: string | undefined
  finishedAt: string | undefined
}

/** A scan's report as it is kept and shown: texts instead of bytes. */
export interface ScanSummary {
  devices: number
  states: number
  bytes: number
  links: number
  users: number
  estimateMs: number
  counts: { note: number; warning: number; held: number }
  byCode: Record<string, number>
  troubles: ShownTrouble[]
}

export interface ShownTrouble {
  severity: 'note' | 'warning' | 'held'
  code: string
  device: string
  name: string
  about: string
  advice: string
  size: number
  sha256?: string
}

/** What the guard saw when it closed the gate. */
export interface Storm {
  /** Devices that were moved, and those of them that lack a state. */
  moved: number
  affected: number
  /** Devices that wrote since the cut-over: what a roll-back has to bring back. */
  wrote: number
  /** What was allowed. */
  threshold: number
  advice: 'roll-back' | 'keep'
  /** False: counted until the gate closed; soon after all devices are looked at and the numbers are true. */
  exact: boolean
  at: string
}

/** What a migration has done so far. */
export interface Progress {
  devices: { total: number; moved: number; pending: number; failed: number; removed: number }
  states: number
  bytes: number
  quarantine: { held: number; remarks: number; devices: number }
  missed: number
  engines: number
}

export interface QuarantineLine {
  device: string
  name: Buffer
  reason: string
  /** False: it was moved all the same. */
  held: boolean
  size: number
  sha256: string | undefined
  key: string | undefined
}

/** A device that is to be copied. */
export interface DeviceRow {
  device: string
  bucket: string
  tries: number
  sourceFingerprint: string | undefined
  targetFingerprint: string | undefined
}

/** What is written when a device's turn is over. */
export interface DeviceMark {
  status: 'pending' | 'moved' | 'removed' | 'failed'
  sourceFingerprint?: string
  targetFingerprint?: string
  states: number
  bytes: number
  digest?: string
  users: Buffer[]
  landmarks: string[]
  error?: string
  /** When to try again, ms. */
  retryAfterMs?: number
  /** Of the copy out; a roll-back leaves the list as it is. */
  quarantine?: QuarantineLine[]
}

/** The mark by which a migration closes gates and owns its target. */
export const gateOf = (id: string): string => `baton:${id}`

const ended = new Set<Phase>(['scanned', 'done', 'rolled-back', 'cancelled'])
export const isOver = (phase: Phase): boolean => ended.has(phase)

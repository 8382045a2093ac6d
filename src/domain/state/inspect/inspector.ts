import { sha256 } from '../../../core/digest.ts'
import { scanSerialized } from '../php/serialized.ts'
import { readPhp } from '../php/value.ts'
import { keyText, type StateKey } from '../state-key.ts'
import type { Link, State, StateEntry } from '../store.ts'
import { formatFileName } from '../stores/file/name.ts'
import { landmarksOf } from './landmarks.ts'
import { nextCounter, type PhoneUser, readUsersOf } from './phone.ts'
import type { Trouble } from './troubles.ts'

export interface InspectionRules {
  /** Whether content is PHP's serialize format. */
  serialized: boolean
  /** Why the target cannot hold it. */
  refuses(item: { device: string; key: StateKey } | Link): string | undefined
}

export interface DeviceReport {
  users: Buffer[]
  /** Of the states that are moved (landmarks.ts). */
  landmarks: string[]
  troubles: Trouble[]
}

/** Looks at a device's states as they pass. Its memory grows with the number of folders, not with their content. */
export interface DeviceInspector {
  /** @returns the code of what keeps the state from being moved, or undefined */
  see(state: State): string | undefined
  /** After the last state: what they say together. */
  finish(): DeviceReport
}

interface Seen {
  entries: StateEntry[]
  held: Set<string>
  phones: PhoneUser[]
  /** The counter that each folder's data names, by uuid. */
  next: Map<string, number>
}

export function createDeviceInspector(device: string, rules: InspectionRules): DeviceInspector {
  const seen: Seen = { entries: [], held: new Set(), phones: [], next: new Map() }
  const troubles: Trouble[] = []
  const add = (code: string, key: StateKey, size: number, digest?: string): void => {
    const name = Buffer.from(formatFileName(device, key))
    troubles.push({ code, device, name, size, key: keyText(key), ...(digest ? { sha256: digest } : {}) })
  }

  return {
    see: (state) => {
      const { key, bytes } = state
      seen.entries.push({ key, size: bytes.length, updatedAtMicros: state.updatedAtMicros })
      const refused = rules.refuses({ device, key })
      const code = refused ?? (rules.serialized ? faultOf(state) : undefined)
      if (code !== undefined) {
        seen.held.add(keyText(key))
        add(code, key, bytes.length, sha256(bytes))
        return code
      }
      if (rules.serialized) learn(state, seen)
      for (const remark of remarksOn(state, rules.serialized)) add(remark, key, bytes.length, sha256(bytes))
      return undefined
    },
    finish: () => {
      if (rules.serialized) {
        for (const { code, key } of remarksTogether(device, seen)) add(code, key, 0)
      }
      const sound = seen.entries.map(({ key }) => key).filter((key) => !seen.held.has(keyText(key)))
      return { users: seen.phones.map((phone) => phone.name), landmarks: landmarksOf(sound), troubles }
    },
  }
}

/** Classes that Z-Push itself keeps in a type; the other types hold what a backend likes. */
const classOf: Partial<Record<StateKey['type'], string>> = { devicedata: 'StateObject', fd: 'SyncParameters' }

const kindName = (key: StateKey): string =>
  key.type === 'devicedata' || key.type === 'fd' ? key.type : 'state'

/** What Z-Push could not read either, so that moving it would only carry the harm along. */
function faultOf({ key, bytes }: State): string | undefined {
  const scan = scanSerialized(bytes)
  if (scan.kind === 'empty') return `zero-byte-${kindName(key)}`
  if (scan.kind === 'truncated') return `truncated-${kindName(key)}`
  if (scan.kind === 'nul') return 'filled-with-nul'
  const expected = classOf[key.type]
  const foreign =
    scan.kind === 'whole' && expected && scan.className !== undefined && scan.className !== expected
  return foreign ? 'unknown-class' : undefined
}

/** Older than Z-Push itself. */
const earliestMicros = 946_684_800_000_000

function* remarksOn({ key, bytes, updatedAtMicros }: State, serialized: boolean): Iterable<string> {
  if (updatedAtMicros < earliestMicros && serialized) yield 'mtime-1970'
  if (key.type === 'hc' && key.counter === 99_999) yield 'legacy-hc-99999'
  if (!serialized) return
  const scan = scanSerialized(bytes)
  if (scan.kind === 'foreign') yield 'not-serialized'
  if (scan.kind !== 'whole') return
  if (scan.trailing > 0) yield 'trailing-garbage'
  if (scan.format === 'O' && classOf[key.type] !== undefined) yield 'newer-O-format'
}

function learn({ key, bytes }: State, seen: Seen): void {
  if (key.type === 'devicedata') seen.phones = readUsersOf(readPhp(bytes)) ?? []
  if (key.type !== 'fd') return
  const next = nextCounter(readPhp(bytes))
  if (next !== undefined) seen.next.set(key.uuid, next)
}

interface Remark {
  code: string
  key: StateKey
}

function* remarksTogether(device: string, seen: Seen): Iterable<Remark> {
  const devicedata: StateKey = { type: 'devicedata', uuid: '', counter: 0 }
  const keys = new Set(seen.entries.map((entry) => keyText(entry.key)))
  if (!keys.has(keyText(devicedata))) yield { code: 'missing-devicedata', key: devicedata }
  else if (keys.size === 1) yield { code: 'devicedata-only', key: devicedata }
  if (seen.phones.some((phone) => phone.deviceId !== '' && phone.deviceId !== device)) {
    yield { code: 'ASDevice-upper-id', key: devicedata }
  } else if (keys.size > 1) {
    yield* missingOf(keys, seen)
  }
  yield* gaps(seen)
}

/** What the phones' next requests would not find. */
function* missingOf(keys: Set<string>, seen: Seen): Iterable<Remark> {
  for (const { folder, uuid } of seen.phones.flatMap((phone) => phone.folders)) {
    const data: StateKey = { type: 'fd', uuid, counter: 0 }
    if (!keys.has(keyText(data))) {
      yield { code: folder === 'hierarchy' ? 'hierarchy-fd-missing' : 'fd-missing', key: data }
      continue
    }
    const counter = seen.next.get(uuid)
    if (counter !== undefined && !keys.has(keyText({ type: '', uuid, counter }))) {
      yield { code: 'fd-points-to-nothing', key: data }
    }
  }
}

/** At rest a folder has the counters N and N+1; a hierarchy keeps its first one, too. */
function* gaps(seen: Seen): Iterable<Remark> {
  const counters = new Map<string, number[]>()
  const hierarchies = new Set<string>()
  for (const { key } of seen.entries) {
    if (key.type === 'hc') hierarchies.add(key.uuid)
    if (key.type === '') counters.set(key.uuid, [...(counters.get(key.uuid) ?? []), key.counter])
  }
  for (const [uuid, all] of counters) {
    if (hierarchies.has(uuid)) continue
    const [lowest, highest] = [Math.min(...all), Math.max(...all)]
    if (all.length > 2 || highest - lowest > 1)
      yield { code: 'counter-gap', key: { type: '', uuid, counter: highest } }
  }
}

import type { StateKey } from './state-key.ts'

export type StoreKind = 'file' | 'zpush-sql' | 'postgres'

/** The only version of states that this code knows, as Z-Push writes it: a text. Any other is a closed gate. */
export const openVersion = '2'

export interface State {
  key: StateKey
  /** Opaque: never parsed to be written again. */
  bytes: Buffer
  /** µs since the Unix epoch; a file's mtime, a row's updated_at. */
  updatedAtMicros: number
}

export interface StateEntry {
  key: StateKey
  size: number
  updatedAtMicros: number
}

/** A user's name is bytes: Z-Push takes what the phone sends, Latin-1 included. */
export interface Link {
  user: Buffer
  device: string
}

/**
 * What keeps the sync states of phones, with the meaning of Z-Push's IStateMachine
 * (lib/interface/istatemachine.php). Three implementations stand in stores/; test/contracts/state-store.ts is
 * run against each. A device whose states vanish has to sync everything again, so nothing here deletes
 * without being asked to by name.
 */
export interface StateStore {
  readonly kind: StoreKind
  /** The URL without its password, for people. */
  readonly place: string
  /**
   * @returns undefined when there is none.
   * @param options.clean GetState's destructive read: removes the older counters of the key. Ours looks first, so
   *   that asking for a counter that is not there destroys nothing (Z-Push's removes, then looks).
   */
  get(device: string, key: StateKey, options?: { clean?: boolean }): Promise<State | undefined>
  /** Differs whenever the bytes do (Z-Push's own, of one second, does not). */
  hash(device: string, key: StateKey): Promise<string | undefined>
  /**
   * Inserts or replaces.
   *
   * @throws STATE_CHANGED when `ifMatch` is not the sha256 of what is there ('*': anything, as long as it exists)
   */
  set(device: string, key: StateKey, bytes: Buffer, options?: { ifMatch?: string }): Promise<void>
  /**
   * Removes the counters below the key's; only that one; or, for a counter 0, all of the key.
   *
   * @returns how many
   * @throws STATE_CHANGED as `set` does
   */
  clean(device: string, key: StateKey, options?: { only?: boolean; ifMatch?: string }): Promise<number>
  list(device: string): Promise<StateEntry[]>
  /** Devices that have states, or those linked to the user. */
  devices(user?: Buffer): AsyncIterable<string>
  /** In the order in which they were linked, as far as the store knows it. */
  links(): AsyncIterable<Link>
  /** @returns whether it changed anything */
  link(user: Buffer, device: string): Promise<boolean>
  unlink(user: Buffer, device: string): Promise<boolean>
  version(): Promise<string | undefined>
  setVersion(version: string): Promise<void>
  close(): Promise<void>
}

export interface Digest {
  key: StateKey
  size: number
  /** Of the bytes as they are read back now. */
  sha256: string
}

/** A device as it stands now. */
export interface Snapshot {
  /** Taken before any byte is read. '' when the device has no states. */
  fingerprint: string
  entries: StateEntry[]
  /** One after the other. @throws SnapshotGone of a state that was removed meanwhile */
  states(): AsyncIterable<State>
}

export interface DeviceDigests {
  fingerprint: string
  digests: Digest[]
}

export interface DeviceSum {
  fingerprint: string
  /** digestOf (digest-of.ts) of all its states. */
  digest: string
}

/** Devices of one bucket. */
export interface BucketSurvey {
  bucket: string
  /** Give it back in `known`, and an unchanged bucket is passed over. Absent: this bucket cannot be marked now. */
  mark?: string
  /** False: nothing in it changed since its mark; `devices` is empty. */
  changed: boolean
  devices: { device: string; fingerprint: string }[]
  strays: Stray[]
}

/** Something in the store that is no movable state. */
export interface Stray {
  /** As it lies there: a path below the store's directory, or a description of a row. Bytes, since a name may be any. */
  name: Buffer
  /** The device that it seems to belong to. */
  device: string
  code: string
  /** Bytes; 0 where it has none. */
  size: number
}

export interface Replacement {
  device: string
  fill(): AsyncIterable<State>
  /** States (keyText) that are left as they are when `fill` does not bring them. */
  keep: ReadonlySet<string>
}

export type StoreRole = 'source' | 'target'

/** What a migration needs of a store besides. */
export interface MovableStore extends StateStore {
  /** Whether the bytes are PHP's serialize format, so that a broken one can be told. */
  readonly serialized: boolean
  /** Why the store cannot hold what another one can; undefined when it can. */
  refuses(item: { device: string; key: StateKey } | Link): string | undefined
  /**
   * Looks without writing whether it can serve. A target must be empty or be marked by `owner`.
   *
   * @throws STATE_SOURCE_UNREADABLE, STATE_VERSION_UNSUPPORTED, STATE_TARGET_FOREIGN, STATE_TARGET_READ_ONLY
   */
  check(role: StoreRole, owner?: string): Promise<void>
  /** Makes the tables or folders of a target and marks it with `version`. */
  prepare(version: string): Promise<void>
  /** All buckets in a fixed order, without those whose mark is in `known` being looked into. Writes nothing. */
  survey(known: ReadonlyMap<string, string>, signal?: AbortSignal): AsyncIterable<BucketSurvey>
  /** @param fresh False: names listed up to a second ago will do. */
  snapshot(device: string, fresh: boolean): Promise<Snapshot>
  /**
   * Replaces all states of each device by what its `fill` yields, in one transaction where there are any. `fill` is
   * called once the locks of all devices are held, so that of two who replace the later one has also read later.
   * Throws what a `fill` throws, and then nothing was replaced where there are transactions.
   */
  replace(devices: Replacement[]): Promise<void>
  /** Reads every state of the devices back. Each device is in the answer. @throws STATE_NOT_FOUND as snapshots do */
  digests(devices: string[], fresh: boolean): Promise<Map<string, DeviceDigests>>
  /**
   * The same in brief, which is all that has to be compared where everything is in order: of SQL stores the server
   * adds it up. Each device that has states is in the answer.
   */
  sums(devices: string[], fresh: boolean): Promise<Map<string, DeviceSum>>
  /** Adds and removes links together. */
  applyLinks(change: { add: Link[]; remove: Link[] }): Promise<void>
  /** The bytes of a stray, for its digest; undefined when it has none or cannot be read. */
  readStray(stray: Stray): AsyncIterable<Buffer> | undefined
  /** A token that differs after any write, cheap to ask for: whether phones are still at work. */
  activity(): Promise<string>
  /**
   * Of a hundred parts of the devices, lets so many in although the gate is closed. Absent where the gate is Z-Push's,
   * which knows no devices.
   */
  admit?(parts: number): Promise<void>
  /** Undoes `prepare` of a store that holds nothing any more. */
  dismantle(): Promise<void>
}

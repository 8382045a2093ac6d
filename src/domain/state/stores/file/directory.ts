import { createHash } from 'node:crypto'
import { type BigIntStats, lstatSync, readdirSync, statSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import path from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { Clock } from '../../../../core/clock.ts'
import { codeOf, messageOf } from '../../../../core/errors.ts'
import { STATE_SOURCE_UNREADABLE } from '../../errors.ts'
import { bucketOf, type StateKey } from '../../state-key.ts'
import type { StateEntry, Stray } from '../../store.ts'
import { parseFileName } from './name.ts'

// Names are handled as Latin-1 texts, one character a byte: whatever a name holds comes back as it was.

/** A state's file, by its name alone. */
export interface Named {
  name: string
  key: StateKey
}

/** A leaf folder, by the names in it. */
export interface Leaf {
  bucket: string
  /** Absent while the folder is too young for its mtime to be believed. */
  mark?: string
  byDevice: Map<string, Named[]>
  strays: Stray[]
  /** How many names are in it. */
  names: number
}

export interface StatedDevice {
  fingerprint: string
  entries: (StateEntry & { name: string })[]
  strays: Stray[]
}

/** Reads Z-Push's directory: `<last character>/<last but one>/<names>`. Never writes. */
export interface StateDirectory {
  readonly root: string
  leafPath(bucket: string): string
  /** Leaf folders, and what lies about outside of them. */
  buckets(): { buckets: string[]; strays: Stray[] }
  /** Differs after anything was made, renamed or removed in a leaf folder. */
  activity(): string
  /** What the mark of the leaf would be now; cheap. */
  mark(bucket: string): string | undefined
  /** @param maxAgeMs a listing that old will do */
  leaf(bucket: string, maxAgeMs?: number): Promise<Leaf>
  /** Looks at each file of the device; its fingerprint changes with any of them. */
  stat(bucket: string, device: string, names: Named[]): Promise<StatedDevice>
}

/** Two writes may fall into one tick of a file system's clock; some tick once a second. */
const racyMs = 1_000
/** Names of listings that are kept for a moment: some megabytes. */
const mostNames = 50_000

interface Listing {
  leaf: Leaf
  at: number
}

export function createStateDirectory(root: string, clock: Clock): StateDirectory {
  const leafPath = (bucket: string): string => path.join(root, bucket)
  const listings = new Map<string, Listing>()
  let namesKept = 0

  const drop = (bucket: string): void => {
    const listing = listings.get(bucket)
    if (!listing) return
    namesKept -= listing.leaf.names
    listings.delete(bucket)
  }
  /** The oldest go when there are too many names; a leaf of its own size is kept whatever it is. */
  const keep = (listing: Listing): void => {
    drop(listing.leaf.bucket)
    listings.set(listing.leaf.bucket, listing)
    namesKept += listing.leaf.names
    for (const oldest of listings.keys()) {
      if (namesKept <= mostNames || listings.size === 1) break
      drop(oldest)
    }
  }

  const mark = (bucket: string): string | undefined => {
    const stats = attempt(root, () => statSync(leafPath(bucket), { bigint: true, throwIfNoEntry: false }))
    if (!stats || Number(stats.mtimeMs) > clock.now() - racyMs) return undefined
    return `${stats.ino}:${stats.mtimeNs}`
  }

  const leaf = async (bucket: string, maxAgeMs = 0): Promise<Leaf> => {
    const known = listings.get(bucket)
    if (known && clock.monotonicMs() - known.at < maxAgeMs) return known.leaf
    const startedAt = clock.monotonicMs()
    const before = mark(bucket)
    const listed = await listLeaf(root, bucket)
    const result: Leaf = before === undefined ? listed : { ...listed, mark: before }
    keep({ leaf: result, at: startedAt })
    return result
  }

  return {
    root,
    leafPath,
    mark,
    leaf,
    activity: () => attempt(root, () => activityOf(root)),
    buckets: () => attempt(root, () => findBuckets(root)),
    stat: (bucket, device, names) => statDevice(root, bucket, device, names),
  }
}

/** Reading a directory fails as a whole: half a listing would be counted as the truth. */
function attempt<T>(place: string, read: () => T): T {
  try {
    return read()
  } catch (error) {
    throw STATE_SOURCE_UNREADABLE({ place, reason: messageOf(error) }, { cause: error })
  }
}

const ownFiles = new Set(['users', 'settings', 'lost+found'])

function findBuckets(root: string): { buckets: string[]; strays: Stray[] } {
  const buckets: string[] = []
  const strays: Stray[] = []
  for (const first of readdirSync(root, 'latin1').toSorted()) {
    if (ownFiles.has(first)) continue
    if (!isFolder(root, first) || first.length !== 1) {
      strays.push(strayOutside(first, root))
      continue
    }
    for (const second of readdirSync(path.join(root, first), 'latin1').toSorted()) {
      const name = `${first}/${second}`
      if (second.length === 1 && isFolder(root, name)) buckets.push(name)
      else strays.push(strayOutside(name, root))
    }
  }
  return { buckets, strays }
}

function activityOf(root: string): string {
  const hash = createHash('md5')
  for (const place of [...findBuckets(root).buckets, 'users']) {
    const stats = statSync(path.join(root, place), { bigint: true, throwIfNoEntry: false })
    hash.update(`${place} ${stats?.ino ?? ''} ${stats?.mtimeNs ?? ''}\n`)
  }
  return hash.digest('hex')
}

function strayOutside(name: string, root: string): Stray {
  const parsed = parseFileName(name.slice(name.lastIndexOf('/') + 1))
  const code = parsed.kind === 'foreign' ? parsed.code : 'wrong-folder'
  return { name: bytesOf(name), device: parsed.device, code, size: sizeOf(root, name) }
}

/** Names may hold any byte, so a path is given to the system as bytes. */
export const bytesOf = (name: string): Buffer => Buffer.from(name, 'latin1')
export const pathOf = (root: string, name: string): Buffer =>
  Buffer.concat([Buffer.from(root), Buffer.from('/'), bytesOf(name)])

const isFolder = (root: string, name: string): boolean =>
  statSync(pathOf(root, name), { throwIfNoEntry: false })?.isDirectory() ?? false

const sizeOf = (root: string, name: string): number => {
  const stats = lstatSync(pathOf(root, name), { throwIfNoEntry: false })
  return stats?.isFile() ? stats.size : 0
}

async function listLeaf(root: string, bucket: string): Promise<Leaf> {
  const byDevice = new Map<string, Named[]>()
  const strays: Stray[] = []
  const names = await readdir(path.join(root, bucket), 'latin1').catch((error: unknown) => {
    // A folder that vanished since it was found holds nothing.
    if (codeOf(error) === 'ENOENT') return []
    throw STATE_SOURCE_UNREADABLE(
      { place: path.join(root, bucket), reason: messageOf(error) },
      { cause: error },
    )
  })
  for (const name of names) {
    const parsed = parseFileName(name)
    const inPlace = parsed.kind === 'foreign' || bucketOf(parsed.device.toLowerCase()) === bucket
    if (parsed.kind === 'state' && inPlace) {
      const list = byDevice.get(parsed.device)
      if (list) list.push({ name, key: parsed.key })
      else byDevice.set(parsed.device, [{ name, key: parsed.key }])
      continue
    }
    const code = parsed.kind === 'state' || !inPlace ? 'wrong-folder' : parsed.code
    const size = sizeOf(root, `${bucket}/${name}`)
    strays.push({ name: bytesOf(`${bucket}/${name}`), device: parsed.device, code, size })
  }
  return {
    bucket,
    byDevice,
    strays: strays.map((stray) => nameTwin(stray, byDevice)),
    names: names.length,
  }
}

/** Of a device in both spellings Z-Push reaches only the lower-case one. */
const nameTwin = (stray: Stray, byDevice: Map<string, Named[]>): Stray =>
  stray.code === 'upper-case-device' && byDevice.has(stray.device.toLowerCase())
    ? { ...stray, code: 'both-cases' }
    : stray

async function statDevice(
  root: string,
  bucket: string,
  device: string,
  names: Named[],
): Promise<StatedDevice> {
  const owner = statSync(root)
  const result: StatedDevice = { fingerprint: '', entries: [], strays: [] }
  const hash = createHash('md5')
  const inOrder = names.toSorted((a, b) => (a.name < b.name ? -1 : 1))
  for (const [index, named] of inOrder.entries()) {
    if (index % 128 === 127) await nextTurn()
    const file = path.join(root, bucket, named.name)
    const stats = statSync(file, { bigint: true, throwIfNoEntry: false })
    const fault = stats ? faultOf(stats, owner) : 'dangling-symlink'
    if (!stats && !lstatSync(file, { throwIfNoEntry: false })) continue
    hash.update(stats ? fingerprintLine(named.name, stats) : `${named.name} dangling\n`)
    if (fault !== undefined || !stats) {
      const name = bytesOf(`${bucket}/${named.name}`)
      result.strays.push({
        name,
        device,
        code: fault ?? 'dangling-symlink',
        size: stats?.isFile() ? Number(stats.size) : 0,
      })
      continue
    }
    const updatedAtMicros = Number(stats.mtimeNs / 1_000n)
    result.entries.push({ key: named.key, name: named.name, size: Number(stats.size), updatedAtMicros })
  }
  if (result.entries.length + result.strays.length > 0) result.fingerprint = hash.digest('hex')
  return result
}

const fingerprintLine = (name: string, stats: BigIntStats): string =>
  `${name} ${stats.ino} ${stats.size} ${stats.mtimeNs} ${stats.ctimeNs}\n`

/** Read as the directory's owner would, since that is who Z-Push runs as: root can read everything. */
function faultOf(stats: BigIntStats, owner: { uid: number; gid: number }): string | undefined {
  if (stats.isDirectory()) return 'directory-as-state'
  if (!stats.isFile()) return 'not-a-file'
  const mode = Number(stats.mode)
  if (owner.uid === 0) return mode & 0o444 ? undefined : 'unreadable-0000'
  if (Number(stats.uid) === owner.uid) return mode & 0o400 ? undefined : 'unreadable-0000'
  if (Number(stats.gid) === owner.gid) return mode & 0o040 ? undefined : 'unreadable-0000'
  return mode & 0o004 ? undefined : 'unreadable-0000'
}

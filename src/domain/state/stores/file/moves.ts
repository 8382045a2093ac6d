import { readFileSync, unlinkSync } from 'node:fs'
import path from 'node:path'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { sha256 } from '../../../../core/digest.ts'
import { codeOf, messageOf } from '../../../../core/errors.ts'
import { STATE_NOT_FOUND, STATE_SOURCE_UNREADABLE } from '../../errors.ts'
import { bucketOf, keyPath, keyText } from '../../state-key.ts'
import type { BucketSurvey, DeviceDigests, Digest, Replacement, State, StateEntry } from '../../store.ts'
import { makeFolder, type Owner, syncFolder, writeAtomically } from './atomic-write.ts'
import type { StateDirectory } from './directory.ts'
import { formatFileName } from './name.ts'
import { readIfThere } from './users.ts'

type NamedEntry = StateEntry & { name: string }

/** What lies outside of the leaf folders is told in a bucket of this name. */
const outside = ''

/** Every leaf folder whose mtime differs from the mark that is known of it. */
export async function* surveyDirectory(
  directory: StateDirectory,
  known: ReadonlyMap<string, string>,
  signal?: AbortSignal,
): AsyncIterable<BucketSurvey> {
  const found = directory.buckets()
  if (found.strays.length > 0) yield { bucket: outside, changed: true, devices: [], strays: found.strays }
  for (const bucket of found.buckets) {
    if (signal?.aborted) return
    const mark = directory.mark(bucket)
    if (mark !== undefined && known.get(bucket) === mark) {
      yield { bucket, mark, changed: false, devices: [], strays: [] }
      continue
    }
    yield await surveyLeaf(directory, bucket)
  }
}

async function surveyLeaf(directory: StateDirectory, bucket: string): Promise<BucketSurvey> {
  const leaf = await directory.leaf(bucket)
  const survey: BucketSurvey = {
    bucket,
    changed: true,
    devices: [],
    strays: leaf.strays,
    ...(leaf.mark === undefined ? {} : { mark: leaf.mark }),
  }
  for (const [device, names] of leaf.byDevice) {
    const stated = await directory.stat(bucket, device, names)
    survey.strays.push(...stated.strays)
    if (stated.entries.length > 0) survey.devices.push({ device, fingerprint: stated.fingerprint })
  }
  return survey
}

/** Reading is synchronous, 15 µs a file against 90 µs by promises, with a turn for others now and then. */
export async function* readStates(
  directory: StateDirectory,
  bucket: string,
  entries: NamedEntry[],
): AsyncIterable<State> {
  for (const [index, { name, key, updatedAtMicros }] of entries.entries()) {
    if (index % 64 === 63) await nextTurn()
    yield { key, updatedAtMicros, bytes: readListed(directory, bucket, name, key) }
  }
}

function readListed(directory: StateDirectory, bucket: string, name: string, key: StateEntry['key']): Buffer {
  const file = path.join(directory.leafPath(bucket), name)
  try {
    return readFileSync(file)
  } catch (error) {
    const device = name.slice(0, name.indexOf('-'))
    if (codeOf(error) === 'ENOENT') throw STATE_NOT_FOUND({ device, key: keyPath(key) }, { cause: error })
    throw STATE_SOURCE_UNREADABLE({ place: file, reason: messageOf(error) }, { cause: error })
  }
}

export async function digestFiles(
  directory: StateDirectory,
  device: string,
  fresh: boolean,
): Promise<DeviceDigests> {
  const bucket = bucketOf(device)
  const leaf = await directory.leaf(bucket, fresh ? 0 : 1_000)
  const stated = await directory.stat(bucket, device, leaf.byDevice.get(device) ?? [])
  const digests: Digest[] = []
  for await (const state of readStates(directory, bucket, stated.entries)) {
    digests.push({ key: state.key, size: state.bytes.length, sha256: sha256(state.bytes) })
  }
  return { fingerprint: stated.fingerprint, digests }
}

export interface FileReplacement extends Replacement {
  directory: StateDirectory
  owner: Owner | undefined
}

/** Most bytes of states that are written side by side: their syncs share the disk's flushes. */
const groupBytes = 8 * 1024 * 1024
const groupFiles = 16

/**
 * Brings the device's files to what `fill` yields. A file that has the bytes already is left alone; what is too much
 * goes last, so that a crash leaves too much rather than too little.
 */
export async function replaceFiles(work: FileReplacement): Promise<void> {
  const bucket = bucketOf(work.device)
  const folder = work.directory.leafPath(bucket)
  const before = (await work.directory.leaf(bucket)).byDevice.get(work.device) ?? []
  const wanted = new Set<string>()
  let group: State[] = []
  let bytes = 0
  await makeFolder(folder, work.owner)
  const flush = async (): Promise<void> => {
    const states = group.splice(0)
    bytes = 0
    await Promise.all(states.map((state) => writeState(work, folder, state)))
  }
  for await (const state of work.fill()) {
    wanted.add(keyText(state.key))
    group.push(state)
    bytes += state.bytes.length
    if (group.length >= groupFiles || bytes >= groupBytes) await flush()
  }
  await flush()
  for (const { name, key } of before) {
    if (!wanted.has(keyText(key)) && !work.keep.has(keyText(key))) removeIfThere(path.join(folder, name))
  }
  await syncFolder(folder)
}

async function writeState(work: FileReplacement, folder: string, state: State): Promise<void> {
  const file = path.join(folder, formatFileName(work.device, state.key))
  if (readIfFile(file)?.equals(state.bytes)) return
  const { updatedAtMicros } = state
  await writeAtomically(
    file,
    state.bytes,
    work.owner ? { updatedAtMicros, owner: work.owner } : { updatedAtMicros },
  )
}

function readIfFile(file: string): Buffer | undefined {
  try {
    return readIfThere(file)
  } catch {
    // A folder or an unreadable file stands where the state should be: the rename says what is wrong with it.
    return undefined
  }
}

export function removeIfThere(file: string): void {
  try {
    unlinkSync(file)
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error
  }
}

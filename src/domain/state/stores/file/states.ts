import { statSync } from 'node:fs'
import path from 'node:path'
import { sha256 } from '../../../../core/digest.ts'
import { STATE_CHANGED } from '../../errors.ts'
import { bucketOf, keyPath, type StateKey } from '../../state-key.ts'
import type { State, StateEntry, StateStore } from '../../store.ts'
import type { Turns } from '../file.ts'
import type { StateDirectory } from './directory.ts'
import { removeIfThere } from './moves.ts'
import { formatFileName } from './name.ts'
import { readIfThere } from './users.ts'

export interface FileStatesOptions {
  directory: StateDirectory
  /** Writes a file whole and synced. */
  write(file: string, bytes: Buffer): Promise<void>
  inTurn: Turns
}

type FileStates = Pick<StateStore, 'get' | 'hash' | 'set' | 'clean' | 'list'>

export function createFileStates({ directory, write, inTurn }: FileStatesOptions): FileStates {
  const fileOf = (device: string, key: StateKey): string =>
    path.join(directory.leafPath(bucketOf(device)), formatFileName(device, key))

  const get = async (device: string, key: StateKey): Promise<State | undefined> => {
    const file = fileOf(device, key)
    const bytes = readIfThere(file)
    if (!bytes) return undefined
    const stats = statSync(file, { bigint: true, throwIfNoEntry: false })
    return { key, bytes, updatedAtMicros: Number((stats?.mtimeNs ?? 0n) / 1_000n) }
  }

  const list = async (device: string): Promise<StateEntry[]> => {
    const bucket = bucketOf(device)
    const names = (await directory.leaf(bucket)).byDevice.get(device) ?? []
    const { entries } = await directory.stat(bucket, device, names)
    return entries.map(({ key, size, updatedAtMicros }) => ({ key, size, updatedAtMicros }))
  }

  const clean = async (device: string, key: StateKey, only: boolean): Promise<number> => {
    const doomed = (await list(device)).filter((entry) => isDoomed(entry.key, key, only))
    for (const entry of doomed) removeIfThere(fileOf(device, entry.key))
    return doomed.length
  }

  return {
    get: async (device, key, { clean: cleanOlder = false } = {}) => {
      const state = await get(device, key)
      if (state && cleanOlder && key.counter > 0) await clean(device, key, false)
      return state
    },
    hash: async (device, key) => {
      const state = await get(device, key)
      return state && sha256(state.bytes)
    },
    set: (device, key, bytes, { ifMatch } = {}) =>
      inTurn(async () => {
        if (ifMatch !== undefined) assertSame(await get(device, key), ifMatch, { device, key: keyPath(key) })
        await write(fileOf(device, key), bytes)
      }),
    clean: (device, key, { only = false, ifMatch } = {}) =>
      inTurn(async () => {
        if (ifMatch !== undefined) assertSame(await get(device, key), ifMatch, { device, key: keyPath(key) })
        return clean(device, key, only)
      }),
    list,
  }
}

const isDoomed = (entry: StateKey, key: StateKey, only: boolean): boolean => {
  if (entry.type !== key.type || entry.uuid !== key.uuid) return false
  if (key.counter === 0) return true
  return only ? entry.counter === key.counter : entry.counter < key.counter
}

function assertSame(state: State | undefined, ifMatch: string, what: { device: string; key: string }): void {
  const matches = state !== undefined && (ifMatch === '*' || sha256(state.bytes) === ifMatch)
  if (!matches) throw STATE_CHANGED(what)
}

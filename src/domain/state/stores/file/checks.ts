import { accessSync, constants, readdirSync, statSync } from 'node:fs'
import { rm, rmdir, unlink } from 'node:fs/promises'
import path from 'node:path'
import { codeOf, messageOf } from '../../../../core/errors.ts'
import { STATE_SOURCE_UNREADABLE, STATE_TARGET_FOREIGN, STATE_VERSION_UNSUPPORTED } from '../../errors.ts'
import { openVersion } from '../../store.ts'
import { readUsers, readVersion } from './users.ts'

/** As FileStateMachine::GetStateVersion: users without settings is version 1. */
export function versionOf(root: string): string | undefined {
  const version = readVersion(path.join(root, 'settings'))
  if (version === undefined)
    return statSync(path.join(root, 'users'), { throwIfNoEntry: false }) ? '1' : undefined
  return version ?? 'unreadable'
}

export function checkSource(root: string, owner: string | undefined): void {
  let names: string[]
  try {
    names = readdirSync(root)
  } catch (error) {
    throw STATE_SOURCE_UNREADABLE({ place: root, reason: messageOf(error) }, { cause: error })
  }
  const version = versionOf(root)
  if (version === openVersion || (owner !== undefined && version === owner)) return
  if (version === undefined) {
    const reason = names.length === 0 ? 'it is empty' : 'it holds neither settings nor users'
    throw STATE_SOURCE_UNREADABLE({ place: root, reason: `${reason}; is it Z-Push's STATE_DIR?` })
  }
  throw STATE_VERSION_UNSUPPORTED({ place: root, version, advice: adviceFor(version) })
}

export function adviceFor(version: string): string {
  if (version === '1') return 'It was written by Z-Push 2.0: upgrade it with Z-Push first.'
  if (version === 'unreadable')
    return 'The settings are broken, so Z-Push answers 503 to every phone: restore them.'
  if (version.startsWith('baton:')) return 'Another migration holds its gate: see `baton state status`.'
  return 'Somebody closed it, or it is of a newer Z-Push.'
}

export function checkTarget(root: string, owner: string | undefined): void {
  let names: string[]
  try {
    names = readdirSync(root)
    accessSync(root, constants.W_OK)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return
    if (codeOf(error) === 'ENOTDIR') throw STATE_TARGET_FOREIGN({ place: root, reason: 'it is not a folder' })
    throw STATE_TARGET_FOREIGN({ place: root, reason: messageOf(error) }, { cause: error })
  }
  const version = versionOf(root)
  if (owner !== undefined && version === owner) return
  if (names.every((name) => name === 'lost+found')) return
  const reason = version?.startsWith('baton:')
    ? `it belongs to the migration ${version.slice('baton:'.length)}`
    : `it is not empty (${names.slice(0, 3).join(', ')}${names.length > 3 ? ', …' : ''})`
  throw STATE_TARGET_FOREIGN({ place: root, reason })
}

/** Removes what is empty; whatever somebody else put there stays, and so do the folders that hold it. */
export async function dismantle(root: string): Promise<void> {
  await unlink(path.join(root, 'settings')).catch(() => undefined)
  if (readUsersIfWhole(root)?.size === 0) await rm(path.join(root, 'users'), { force: true })
  for (const first of readdirSync(root)) {
    if (first.length !== 1) continue
    for (const second of readdirSync(path.join(root, first))) {
      await rmdir(path.join(root, first, second)).catch(() => undefined)
    }
    await rmdir(path.join(root, first)).catch(() => undefined)
  }
}

function readUsersIfWhole(root: string) {
  try {
    return readUsers(path.join(root, 'users'))
  } catch {
    return undefined
  }
}

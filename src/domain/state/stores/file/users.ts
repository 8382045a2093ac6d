import { readFileSync } from 'node:fs'
import { codeOf } from '../../../../core/errors.ts'
import { STATE_SOURCE_UNREADABLE } from '../../errors.ts'
import { at, isArray, keyBytes, readPhp, serializeKey } from '../../php/value.ts'
import type { Link } from '../../store.ts'

/** `a:N:{user => a:M:{device => i:1}}`, in Z-Push's order: PHP keeps the order of insertion, and so do we. */
export type Users = Map<string, string[]>

// Users are kept as Latin-1 texts, one character a byte.
export const userText = (user: Buffer): string => user.toString('latin1')
export const userBytes = (user: string): Buffer => Buffer.from(user, 'latin1')

/** @throws STATE_SOURCE_UNREADABLE when the file is there and broken: taking it for empty would lose all links */
export function readUsers(file: string): Users {
  const bytes = readIfThere(file)
  const users: Users = new Map()
  if (bytes === undefined) return users
  const value = readPhp(bytes)
  if (!isArray(value)) {
    throw STATE_SOURCE_UNREADABLE({
      place: file,
      reason: 'it is not a serialized array. Restore it from a backup',
    })
  }
  for (const [user, devices] of value.entries) {
    const ids = isArray(devices) ? devices.entries.map(([device]) => userText(keyBytes(device))) : []
    users.set(userText(keyBytes(user)), ids)
  }
  return users
}

export function writeUsers(users: Users): Buffer {
  const parts: Buffer[] = [Buffer.from(`a:${users.size}:{`)]
  for (const [user, devices] of users) {
    parts.push(serializeKey(userBytes(user)), Buffer.from(`a:${devices.length}:{`))
    for (const device of devices) parts.push(serializeKey(userBytes(device)), Buffer.from('i:1;'))
    parts.push(Buffer.from('}'))
  }
  parts.push(Buffer.from('}'))
  return Buffer.concat(parts)
}

/** @returns whether it changed anything */
export function addLink(users: Users, link: Link): boolean {
  const devices = users.get(userText(link.user))
  if (devices?.includes(link.device)) return false
  if (devices) devices.push(link.device)
  else users.set(userText(link.user), [link.device])
  return true
}

/** A user without devices goes, as in FileStateMachine::UnLinkUserDevice. */
export function removeLink(users: Users, link: Link): boolean {
  const user = userText(link.user)
  const devices = users.get(user)
  const index = devices?.indexOf(link.device) ?? -1
  if (!devices || index < 0) return false
  devices.splice(index, 1)
  if (devices.length === 0) users.delete(user)
  return true
}

/** The version in `settings`: undefined when the file is missing, null when it is broken. */
export function readVersion(file: string): string | undefined | null {
  const bytes = readIfThere(file)
  if (bytes === undefined) return undefined
  const version = at(readPhp(bytes), 'version')
  // Z-Push compares with !==, so an integer 2 is not the text "2".
  return Buffer.isBuffer(version) ? version.toString('latin1') : null
}

export const writeVersion = (version: string): Buffer =>
  Buffer.from(`a:1:{s:7:"version";s:${Buffer.byteLength(version)}:"${version}";}`)

export function readIfThere(file: string | Buffer): Buffer | undefined {
  try {
    return readFileSync(file)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw error
  }
}

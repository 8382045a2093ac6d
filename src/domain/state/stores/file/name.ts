import type { StateKey } from '../../state-key.ts'

/** What a name in a leaf folder says. */
export type FileName =
  | { kind: 'state'; device: string; key: StateKey }
  /** Looks like a state of the device, and is none that Z-Push would write or find. */
  | { kind: 'stray'; device: string; code: string }
  /** Has nothing to do with states. */
  | { kind: 'foreign'; code: string; device: string }

const uuid = '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}'
const withUuid = new RegExp(`^(${uuid})(?:-(fd|fs|hc|bs))?(?:-(\\d+))?$`)
const likeUuid = new RegExp(`^${uuid}`)
const temporary = /^tmp-\d+-(?<rest>.*)$/s

/**
 * Reads a file name as FileStateMachine::getFullFilePath writes it (lib/default/filestatemachine.php:433):
 * `<device>[-<uuid>][-<type>][-<counter>]`. Strict: a name that Z-Push would not write is not guessed at.
 */
export function parseFileName(name: string): FileName {
  const leftover = temporary.exec(name)
  if (leftover)
    return { kind: 'foreign', code: 'leftover-tmp', device: deviceOf(leftover.groups?.['rest'] ?? '') }
  const dash = name.indexOf('-')
  const device = dash < 0 ? '' : name.slice(0, dash)
  if (!/^[A-Za-z0-9]{2,}$/.test(device)) return { kind: 'foreign', code: 'foreign-files', device: '' }
  const key = parseRest(name.slice(dash + 1))
  if (typeof key === 'string') return { kind: 'stray', device, code: key }
  if (/[A-Z]/.test(device)) return { kind: 'stray', device, code: 'upper-case-device' }
  return { kind: 'state', device, key }
}

const deviceOf = (name: string): string => /^[A-Za-z0-9]{2,}(?=-)/.exec(name)?.[0] ?? ''

/** @returns the key, or the code of what is wrong */
function parseRest(rest: string): StateKey | string {
  if (rest === 'devicedata') return { type: 'devicedata', uuid: '', counter: 0 }
  if (!/^[A-Za-z0-9-]+$/.test(rest)) return 'unknown-name-bak'
  const permanent = /^bs-(\d+)$/.exec(rest)
  if (permanent) return numbered('bs', '', permanent[1] ?? '')
  const match = withUuid.exec(rest)
  if (!match) return unknownName(rest)
  const [, id = '', type = '', counter] = match
  if (type === 'fd') return counter === undefined ? { type, uuid: id, counter: 0 } : 'unknown-name-foo'
  if (counter === undefined) return type === '' ? 'uuid-without-counter' : 'unknown-name-foo'
  return numbered(type as 'fs' | 'hc' | 'bs' | '', id, counter)
}

function unknownName(rest: string): string {
  return likeUuid.test(rest) ? 'unknown-type-xx' : 'unknown-name-foo'
}

function numbered(type: StateKey['type'], id: string, counter: string): StateKey | string {
  // Z-Push appends a counter as the integer that it is, and none when it is 0: these names are never looked for.
  if (/^0+$/.test(counter)) return 'counter-zero'
  if (counter.startsWith('0')) return 'counter-leading-zero'
  const value = Number(counter)
  return Number.isSafeInteger(value) ? { type, uuid: id, counter: value } : 'counter-too-large'
}

export function formatFileName(device: string, key: StateKey): string {
  const parts = [device, key.uuid, key.type, key.counter === 0 ? '' : String(key.counter)]
  return parts.filter((part) => part !== '').join('-')
}

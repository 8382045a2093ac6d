import { createHash } from 'node:crypto'
import { CURSOR_INVALID } from './errors.ts'

const version = 1
/** 48 bits of a hash tell the devices of one listen apart. */
const markBytes = 6
const entryBytes = markBytes + 6

/** Where a listen stands with each of its devices: the number of the last row that was given to it. */
export interface Positions {
  get(device: string): number
  set(device: string, position: number): void
  /** As a client gets it. */
  cursor(): string
}

/**
 * Kept in the form of the cursor, since a stream writes one for every notification: one byte of version, then for each
 * device six bytes of the hash of its id and six of its position. It needs no signature: all that it can do is
 * confirm what was delivered to devices whose token came with it.
 */
export function createPositions(devices: readonly string[]): Positions {
  const bytes = Buffer.alloc(1 + devices.length * entryBytes)
  bytes[0] = version
  for (const [index, device] of devices.entries()) markOf(device).copy(bytes, 1 + index * entryBytes)
  const placeOf = (device: string): number => {
    const index = devices.indexOf(device)
    if (index < 0) throw new RangeError('a device that is not of this listen')
    return 1 + index * entryBytes + markBytes
  }
  return {
    get: (device) => bytes.readUIntBE(placeOf(device), 6),
    set: (device, position) => void bytes.writeUIntBE(position, placeOf(device), 6),
    cursor: () => bytes.toString('base64url'),
  }
}

/**
 * The positions that a cursor holds for these devices. A device that it does not name is missing in the answer:
 * nothing of it is confirmed.
 *
 * @throws CURSOR_INVALID when it is none, or names none of the devices
 */
export function readCursor(cursor: string, devices: readonly string[]): Map<string, number> {
  const bytes = Buffer.from(cursor, 'base64url')
  if (bytes[0] !== version || (bytes.length - 1) % entryBytes !== 0 || cursor.length > 20_000) {
    throw CURSOR_INVALID({ reason: 'is not one that a listen answered' })
  }
  const positionsByMark = new Map<string, number>()
  for (let offset = 1; offset < bytes.length; offset += entryBytes) {
    positionsByMark.set(
      bytes.toString('latin1', offset, offset + markBytes),
      bytes.readUIntBE(offset + markBytes, 6),
    )
  }
  const positions = new Map<string, number>()
  for (const device of devices) {
    const position = positionsByMark.get(markOf(device).toString('latin1'))
    if (position !== undefined) positions.set(device, position)
  }
  if (positions.size === 0) throw CURSOR_INVALID({ reason: 'belongs to another device' })
  return positions
}

const markOf = (device: string): Buffer => createHash('sha256').update(device).digest().subarray(0, markBytes)

import { sha256 } from '../../core/digest.ts'
import type { Queryable } from '../../platform/postgres/postgres.ts'
import { instantText } from '../../platform/replication/instants.ts'
import type { Part } from '../../platform/replication/replicated.ts'
import { STATE_PART_DAMAGED } from './errors.ts'

/** All states of a device as sites copy them, and whose it is. */
export interface StatesContent {
  device: string
  /** By uuid, type and counter. */
  states: StateContent[]
  /** Base64, in the order in which they were linked. */
  users: string[]
}

export interface StateContent {
  uuid: string
  type: string
  counter: string
  sha256: string
  size: number
  updatedAt: string
}

interface StatesRow {
  device: string
  states: [string, string, string, string, number, string][] | null
  users: string[] | null
  [column: string]: unknown
}

const readText = `
  SELECT d.device,
    (SELECT json_agg(json_build_array(s.uuid, s.type, s.counter::text, encode(s.sha256, 'hex'), octet_length(s.data),
        ${instantText('s.updated_at')}) ORDER BY s.uuid, s.type, s.counter)
      FROM states s WHERE s.device = d.device) AS states,
    (SELECT json_agg(encode(l.user_name, 'hex') ORDER BY l.id) FROM state_links l WHERE l.device = d.device) AS users
  FROM unnest($1::text[]) AS d (device)`

/** Of each device, also of those that have nothing. */
export async function readStates(devices: readonly string[], database: Queryable): Promise<StatesContent[]> {
  const { rows } = await database.query<StatesRow>({
    name: 'replicated-states-read',
    text: readText,
    values: [devices],
  })
  return rows.map(contentOf)
}

const contentOf = ({ device, states, users }: StatesRow): StatesContent => ({
  device,
  states: (states ?? []).map(([uuid, type, counter, hash, size, updatedAt]) => ({
    uuid,
    type,
    counter,
    sha256: hash,
    size,
    updatedAt,
  })),
  users: (users ?? []).map((user) => Buffer.from(user, 'hex').toString('base64')),
})

/** @throws STATE_PART_DAMAGED */
export function assertWhole(device: string, part: Part): void {
  if (sha256(part.bytes) !== part.sha256) throw STATE_PART_DAMAGED({ device, sha256: part.sha256 })
}

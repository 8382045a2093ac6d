import type { Queryable } from '../../platform/postgres/postgres.ts'
import { accountOf } from '../../platform/replication/account.ts'
import type { Part, ReplicatedType } from '../../platform/replication/replicated.ts'
import { applyStates } from './apply-states.ts'
import { STATE_PARTS_TOO_LARGE } from './errors.ts'
import { assertWhole, readStates, type StatesContent } from './states-content.ts'

/** Bytes of one device that are held in memory, here and at the other site. */
const maxPartsBytes = 268_435_456

const scanText = `
  (SELECT device FROM state_devices d WHERE device > $1 AND EXISTS (SELECT FROM states s WHERE s.device = d.device)
    ORDER BY device LIMIT $2)
  UNION (SELECT DISTINCT device FROM state_links WHERE device > $1 ORDER BY device LIMIT $2)
  ORDER BY device LIMIT $2`

/** A state's bytes may stand under several keys; they go once. */
const lackedText = `
  FROM (SELECT DISTINCT ON (sha256) sha256, data FROM states
    WHERE device = $1 AND NOT encode(sha256, 'hex') = ANY ($2::text[]) ORDER BY sha256) AS lacked`

/**
 * States and links, a device at a time, with the bytes of states as parts. Content and parts of a device are to be read
 * in one snapshot: of a state that is written in between, the bytes would not be found.
 *
 * The gate of the store (state_gate) is not copied: it belongs to the migration that closed it, at the site where that
 * runs. The sha256 of a row is believed when it is read; the bytes are compared with it when they are sent.
 */
export function createReplicatedStates(): ReplicatedType {
  return {
    type: 'states',
    absentKind: 'delete',
    read: async (ids, database) => {
      const all = await readStates(ids, database)
      const present = all.filter(({ states, users }) => states.length + users.length > 0)
      return new Map(
        present.map((each) => [each.device, { content: JSON.stringify(each), account: owner(each) }]),
      )
    },
    scan: async (after, limit, database) => {
      const { rows } = await database.query<{ device: string }>(scanText, [after ?? '', limit])
      return rows.map(({ device }) => device)
    },
    holdings: async (ids, database) => {
      const { rows } = await database.query<{ device: string; held: string[] }>(
        `SELECT device, array_agg(DISTINCT encode(sha256, 'hex')) AS held FROM states WHERE device = ANY ($1) GROUP BY device`,
        [ids],
      )
      return new Map(rows.map(({ device, held }) => [device, held]))
    },
    parts: (id, held, database) => readParts(id, held, database),
    apply: ({ content, parts }, client) => applyStates(JSON.parse(content) as StatesContent, parts, client),
    remove: async (id, client) => {
      // The device's row stays, as it does when its last state is cleaned: its version must not begin anew.
      await client.query(
        'UPDATE state_devices SET version = version + 1, changed_at = now() WHERE device = $1',
        [id],
      )
      await client.query('DELETE FROM states WHERE device = $1', [id])
      await client.query('DELETE FROM state_links WHERE device = $1', [id])
    },
  }
}

const owner = ({ device, users: [user] }: StatesContent): string =>
  user === undefined ? accountOf('device', device) : accountOf('phone-user', user)

/** @throws STATE_PARTS_TOO_LARGE, STATE_PART_DAMAGED */
async function readParts(device: string, held: ReadonlySet<string>, database: Queryable): Promise<Part[]> {
  const values = [device, [...held]]
  const sum = await database.query<{ bytes: string }>(
    `SELECT coalesce(sum(octet_length(data)), 0) AS bytes ${lackedText}`,
    values,
  )
  const bytes = Number(sum.rows[0]?.bytes)
  if (bytes > maxPartsBytes) throw STATE_PARTS_TOO_LARGE({ device, bytes, maxBytes: maxPartsBytes })
  const { rows } = await database.query<{ sha256: string; bytes: Buffer }>(
    `SELECT encode(sha256, 'hex') AS sha256, data AS bytes ${lackedText}`,
    values,
  )
  for (const part of rows) assertWhole(device, part)
  return rows
}

import type { Queryable } from '../../platform/postgres/postgres.ts'
import { instantOf } from '../../platform/replication/instants.ts'
import type { Part } from '../../platform/replication/replicated.ts'
import { STATE_PART_DAMAGED, STATE_PART_MISSING } from './errors.ts'
import { assertWhole, readStates, type StateContent, type StatesContent } from './states-content.ts'
import { touch } from './stores/postgres.ts'

/** What has to be done so that a device has the states that were sent. */
interface Difference {
  /** Their bytes came along. */
  sent: { state: StateContent; bytes: Buffer }[]
  /** Their bytes stand here under another key. */
  moved: StateContent[]
  /** The bytes are right, the time is not. */
  retimed: StateContent[]
  gone: StateContent[]
}

const keyOf = ({ uuid, type, counter }: StateContent): string => JSON.stringify([uuid, type, counter])

/**
 * Makes the device what was sent, and writes only what differs.
 *
 * @throws STATE_PART_MISSING, STATE_PART_DAMAGED
 */
export async function applyStates(wanted: StatesContent, parts: Part[], client: Queryable): Promise<void> {
  const { device } = wanted
  for (const part of parts) assertWhole(device, part)
  // First, since its row is the device's turn; and its version grows, so that fingerprints of it are others.
  const version = (await touch(client, [device])).get(device) ?? '1'
  const [present = { device, states: [], users: [] }] = await readStates([device], client)
  const difference = differenceOf(wanted, present, parts)
  const place = { device, version, client }
  // Moved ones first: what stands under their old keys may be written over by the others.
  await copyMoved(place, difference.moved)
  for (const each of difference.sent) await writeSent(place, each.state, each.bytes)
  await retime(place, difference.retimed)
  await clear(place, difference.gone)
  await applyUsers(client, wanted, present.users)
}

function differenceOf(wanted: StatesContent, present: StatesContent, parts: Part[]): Difference {
  const bytesOf = new Map(parts.map((part) => [part.sha256, part.bytes]))
  const here = new Map(present.states.map((state) => [keyOf(state), state]))
  const held = new Set(present.states.map((state) => state.sha256))
  const difference: Difference = { sent: [], moved: [], retimed: [], gone: [] }
  for (const state of wanted.states) {
    const former = here.get(keyOf(state))
    here.delete(keyOf(state))
    const bytes = bytesOf.get(state.sha256)
    if (bytes && bytes.length !== state.size) {
      throw STATE_PART_DAMAGED({ device: wanted.device, sha256: state.sha256 })
    }
    if (former?.sha256 === state.sha256) {
      if (former.updatedAt !== state.updatedAt) difference.retimed.push(state)
    } else if (bytes) difference.sent.push({ state, bytes })
    else if (held.has(state.sha256)) difference.moved.push(state)
    else throw STATE_PART_MISSING({ device: wanted.device, key: keyOf(state) })
  }
  difference.gone.push(...here.values())
  return difference
}

interface Place {
  device: string
  version: string
  client: Queryable
}

const overwrite = `ON CONFLICT (device, uuid, type, counter) DO UPDATE
  SET (data, sha256, version, updated_at) = (excluded.data, excluded.sha256, excluded.version, excluded.updated_at)`

async function copyMoved({ device, version, client }: Place, states: StateContent[]): Promise<void> {
  if (states.length === 0) return
  await client.query(
    `INSERT INTO states (device, uuid, type, counter, data, sha256, version, updated_at)
     SELECT $1, w.uuid, w.type, w.counter, held.data, held.sha256, $2, ${instantOf('w.updated_at')}
       FROM unnest($3::text[], $4::text[], $5::bigint[], $6::text[], $7::text[])
         AS w (uuid, type, counter, sha256, updated_at)
      CROSS JOIN LATERAL (SELECT s.data, s.sha256 FROM states s
         WHERE s.device = $1 AND s.sha256 = decode(w.sha256, 'hex') LIMIT 1) AS held
     ${overwrite}`,
    [device, version, ...keyColumns(states), states.map((each) => each.sha256), timesOf(states)],
  )
}

async function writeSent(
  { device, version, client }: Place,
  state: StateContent,
  bytes: Buffer,
): Promise<void> {
  await client.query({
    name: 'replicated-states-write',
    text: `INSERT INTO states (device, uuid, type, counter, data, sha256, version, updated_at)
      VALUES ($1, $2, $3, $4, $5, decode($6, 'hex'), $7, ${instantOf('$8')}) ${overwrite}`,
    values: [device, state.uuid, state.type, state.counter, bytes, state.sha256, version, state.updatedAt],
  })
}

async function retime({ device, version, client }: Place, states: StateContent[]): Promise<void> {
  if (states.length === 0) return
  await client.query(
    `UPDATE states s SET updated_at = ${instantOf('w.updated_at')}, version = $2
       FROM unnest($3::text[], $4::text[], $5::bigint[], $6::text[]) AS w (uuid, type, counter, updated_at)
      WHERE s.device = $1 AND s.uuid = w.uuid AND s.type = w.type AND s.counter = w.counter`,
    [device, version, ...keyColumns(states), timesOf(states)],
  )
}

async function clear({ device, client }: Place, states: StateContent[]): Promise<void> {
  if (states.length === 0) return
  await client.query(
    `DELETE FROM states s USING unnest($2::text[], $3::text[], $4::bigint[]) AS w (uuid, type, counter)
      WHERE s.device = $1 AND s.uuid = w.uuid AND s.type = w.type AND s.counter = w.counter`,
    [device, ...keyColumns(states)],
  )
}

const keyColumns = (states: StateContent[]): string[][] => [
  states.map((each) => each.uuid),
  states.map((each) => each.type),
  states.map((each) => each.counter),
]

const timesOf = (states: StateContent[]): string[] => states.map((each) => each.updatedAt)

/** Their order is that of their numbers, so links that come before others already there mean that all are made anew. */
async function applyUsers(
  client: Queryable,
  { device, users }: StatesContent,
  present: string[],
): Promise<void> {
  const keeps = present.length <= users.length && present.every((user, index) => user === users[index])
  const added = keeps ? users.slice(present.length) : users
  if (!keeps) await client.query('DELETE FROM state_links WHERE device = $1', [device])
  if (added.length === 0) return
  await client.query(
    `INSERT INTO state_links (user_name, device)
     SELECT decode(l.user_name, 'base64'), $1 FROM unnest($2::text[]) WITH ORDINALITY AS l (user_name, n) ORDER BY n`,
    [device, added],
  )
}

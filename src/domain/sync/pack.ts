import { codeOf, messageOf } from '../../core/errors.ts'
import { isAway } from '../../platform/postgres/postgres.ts'
import type { Part } from '../../platform/replication/replicated.ts'
import { refusalOf } from '../../platform/replication/site-client.ts'
import { keyOf, readImages } from './judge.ts'
import type { Link } from './link.ts'
import type { Quarantined } from './quarantine.ts'
import { type Policies, policyOf } from './replica-rows.ts'
import { encodePart } from './trash.ts'
import type { ChangeRow } from './window.ts'
import type { AppliedObject, PlanAnswer } from './wire.ts'

export type Planned = PlanAnswer['objects'][number]

/** A row of the log and what the replica says of it. */
export interface PlannedRow {
  row: ChangeRow
  planned: Planned
}

/** Objects for one request. */
export interface Shipment {
  objects: AppliedObject[]
  /** Rows of the beginning that it deals with; the others did not fit. */
  rows: number
  /** Rows of those that cannot be sent. */
  unsent: Quarantined[]
}

/** Content and parts of one request, unless one object alone has more. */
const mostBytes = 8 * 1024 * 1024
/** What a request can hold at all, with room for base64 and JSON. */
const largestObject = 44 * 1024 * 1024
const slice = 100

export async function plan(link: Link, rows: readonly ChangeRow[]): Promise<PlannedRow[]> {
  if (rows.length === 0) return []
  const objects = rows.map(({ type, id, kind, hash }) => ({ type, id, kind, hash }))
  const answer = await link.remote.plan(link.speaker, { objects })
  return rows.map((row, index) => ({
    row,
    planned: answer.objects[index] ?? { state: 'send', parts: [], has: false },
  }))
}

/** Reads what is to be sent as it is now, in the order of the rows, until a request is full. Sends bytes ahead. */
export async function pack(
  link: Link,
  rows: readonly PlannedRow[],
  policies = link.policies,
): Promise<Shipment> {
  const moved: ChangeRow[] = []
  const shipment = await fill(link, rows, { policies, moved })
  await renumber(link, moved)
  return shipment
}

/**
 * Objects that are not any more as they were numbered: what is sent has no position of its own yet. They get another one
 * whatever they are by then. Else one that changes and changes back would keep its position here, and over there what it
 * was in between. Before anything is sent, so that a crash loses no word of it.
 */
async function renumber({ postgres }: Link, moved: readonly ChangeRow[]): Promise<void> {
  if (moved.length === 0) return
  const values = [moved.map(({ type }) => type), moved.map(({ id }) => id), moved.map(({ pos }) => pos)]
  await postgres.query(
    `WITH moved AS (
       UPDATE changes c SET hash = NULL
       FROM unnest($1::text[], $2::text[], $3::bigint[]) AS o (type, id, pos)
       WHERE c.type = o.type COLLATE "C" AND c.id = o.id COLLATE "C" AND c.pos = o.pos
       RETURNING c.shard, c.type, c.id)
     INSERT INTO change_pending (shard, type, id) SELECT shard, type, id FROM moved`,
    values,
  )
}

interface Filling {
  policies: Policies
  /** Filled with the rows whose objects have changed since. */
  moved: ChangeRow[]
}

async function fill(
  link: Link,
  rows: readonly PlannedRow[],
  { policies, moved }: Filling,
): Promise<Shipment> {
  const shipment: Shipment = { objects: [], rows: 0, unsent: [] }
  let bytes = 0
  for (let start = 0; start < rows.length; start += slice) {
    const some = rows.slice(start, start + slice)
    const wanted = new Set(some.filter((each) => isWanted(each, policyOf(policies, each.row.type))))
    const images = await readImages(
      link.types,
      [...wanted].map(({ row }) => row),
      link.postgres,
    )
    for (const each of some) {
      const policy = policyOf(policies, each.row.type)
      const packed = wanted.has(each)
        ? await packWanted(link, { ...each, policy, image: images.get(keyOf(each.row)), parts: [] }, moved)
        : await packOne(link, { ...each, policy, image: undefined, parts: [] })
      const size = packed && 'object' in packed ? packed.bytes : 0
      if (bytes + size > mostBytes && shipment.objects.length > 0) return shipment
      bytes += size
      shipment.rows++
      if (packed && 'object' in packed) shipment.objects.push(packed.object)
      else if (packed) shipment.unsent.push(packed)
    }
  }
  return shipment
}

/** @returns undefined for an object that is gone: its tombstone comes at a later position */
async function packWanted(
  link: Link,
  packing: Packing,
  moved: ChangeRow[],
): Promise<{ object: AppliedObject; bytes: number } | Quarantined | undefined> {
  const whole = packing.image ? await readWhole(link, packing, packing.image) : undefined
  if (whole?.image?.hash !== packing.row.hash) moved.push(packing.row)
  return whole?.image ? packOne(link, { ...packing, ...whole }) : undefined
}

const isWanted = ({ row, planned }: PlannedRow, policy: string): boolean =>
  row.kind === 'upsert' && (planned.state === 'send' || (planned.state === 'mismatch' && policy !== 'report'))

type Sendable = { content: string; hash: string; account: string | null }

/** As of one instant: content that names bytes which were read a moment later, and are others, cannot be written. */
async function readWhole(
  { types, postgres }: Link,
  { row, planned }: PlannedRow,
  first: Sendable,
): Promise<{ image: Sendable | undefined; parts: Part[] }> {
  const type = types.get(row.type)
  if (!type?.parts) return { image: first, parts: [] }
  const { parts } = type
  return postgres.transaction(async (client) => {
    await client.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY')
    const image = (await readImages(types, [row], client)).get(keyOf(row))
    return { image, parts: image ? await parts(row.id, new Set(planned.parts), client) : [] }
  })
}

interface Packing extends PlannedRow {
  image: Sendable | undefined
  parts: Part[]
  policy: AppliedObject['policy']
}

async function packOne(
  link: Link,
  { row, planned, image, parts, policy }: Packing,
): Promise<{ object: AppliedObject; bytes: number } | Quarantined> {
  const { type, id, pos, kind } = row
  try {
    if (image) await sendBytes(link, row, planned)
    const rest = await sendAhead(link, row, parts)
    const size = sizeOf(rest) + (image?.content.length ?? 0)
    if (size > largestObject) throw new Error(`its ${size} bytes are more than a request can hold`)
    return {
      bytes: size,
      object: {
        type,
        id,
        pos,
        kind,
        policy,
        hash: image?.hash ?? row.hash,
        account: image?.account ?? row.account,
        content: image?.content ?? null,
        parts: rest.map(encodePart),
      },
    }
  } catch (error) {
    if (!isOfObject(error) && !isOfStores(error)) throw error
    return { type, id, kind: 'failed', reason: messageOf(error) }
  }
}

async function sendBytes(link: Link, { type: name, id }: ChangeRow, planned: Planned): Promise<void> {
  const type = link.types.get(name)
  if (!type?.open || planned.has) return
  const stored = await type.open(id)
  if (!stored) throw new Error('its bytes are not there')
  await link.remote.upload(link.speaker, { id, ...stored })
}

const sizeOf = (parts: readonly Part[]): number => parts.reduce((sum, { bytes }) => sum + bytes.length, 0)

/** Parts that would make a request too large go in requests of their own. @returns those that go with the object */
async function sendAhead(link: Link, { type, id }: ChangeRow, parts: readonly Part[]): Promise<Part[]> {
  if (sizeOf(parts) <= mostBytes) return [...parts]
  for (let start = 0; start < parts.length; ) {
    let end = start + 1
    while (end < parts.length && sizeOf(parts.slice(start, end + 1)) <= mostBytes) end++
    await link.remote.parts(link.speaker, { type, id, parts: parts.slice(start, end).map(encodePart) })
    start = end
  }
  return []
}

const notOfObject = new Set([
  'SITE_UNREACHABLE',
  'SITE_ANSWER_INVALID',
  'DATABASE_UNAVAILABLE',
  'DATABASE_OVERLOADED',
])

/** Whether it is this object that cannot be sent, and not the line or a store that is away. */
export function isOfObject(error: unknown): boolean {
  if (isAway(error) || notOfObject.has(codeOf(error) ?? '')) return false
  const refusal = refusalOf(error)
  return refusal === undefined || isOfRequest(refusal.status)
}

/** The stores of bodies over there cannot take it now, which holds up bodies and nothing else. */
const isOfStores = (error: unknown): boolean => refusalOf(error)?.code.startsWith('BODY_') === true

/** What was sent cannot be taken, whoever sends it and whenever. */
export const isOfRequest = (status: number): boolean => [400, 413, 422, 500].includes(status)

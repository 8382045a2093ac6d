import { PAYLOAD_LOST, PAYLOAD_UNAVAILABLE } from './errors.ts'
import type { NewJob } from './ledger.ts'
import type { PayloadStore, StoreWish } from './payload-store.ts'

/** A payload with more bytes of JSON is kept apart from its row. */
export const largePayloadBytes = 16_384

const mark = 'baton:payload'
const prefix = `{"${mark}":`
const referenceForm = /^[0-9a-f]{64}$/

/**
 * What stands in the row instead of a large payload. `names` are the bodies that the payload speaks of: a sweep looks
 * for them in the row.
 */
interface Claim {
  [mark]: string
  bytes: number
  names?: string[]
}

/** One that names more bodies stays in its row, so that a sweep need not read what is kept elsewhere. */
const maxNames = 100
/** A text of fewer characters is never too long, whatever their bytes. */
const surelyShort = Math.floor(largePayloadBytes / 3)

/**
 * Whether the JSON of a payload is to be kept apart: because of its length, or because it looks like a claim, which
 * nobody but us may write.
 */
export const isLarge = (json: string): boolean =>
  (json.length > surelyShort && Buffer.byteLength(json) > largePayloadBytes) || json.startsWith(prefix)

export interface ClaimWish {
  mostNames?: number
  /** Where the row cannot have it instead. */
  single?: StoreWish | undefined
}

/**
 * The JSON for the row of a payload that `isLarge`: a claim, or the same text when the store cannot take it now. That
 * costs room in the database, and is no reason to refuse work.
 *
 * @throws PAYLOAD_UNAVAILABLE for one that looks like a claim: in the row it would be taken for one
 */
export async function claimFor(
  json: string,
  payloads: PayloadStore,
  { mostNames = maxNames, single }: ClaimWish = {},
): Promise<string> {
  const names = namesIn(json)
  const reference = names.length > mostNames ? undefined : await payloads.store(json, single)
  if (reference !== undefined) {
    const claim: Claim = { [mark]: reference, bytes: Buffer.byteLength(json) }
    return JSON.stringify(names.length > 0 ? { ...claim, names } : claim)
  }
  if (!json.startsWith(prefix)) return json
  throw PAYLOAD_UNAVAILABLE(
    { reason: `it begins with ${mark} and cannot be kept apart` },
    { retryAfterMs: 5_000 },
  )
}

/** Puts away the large ones of some rows that are about to be inserted. */
export async function claimLarge(rows: NewJob[], payloads: PayloadStore): Promise<void> {
  await Promise.all(
    rows.map(async (row) => {
      if (row.payloadJson === undefined || !isLarge(row.payloadJson)) return
      row.payloadJson = await claimFor(row.payloadJson, payloads)
    }),
  )
}

/**
 * Every 64 hex digits count: what only looks like an id keeps a body too long, which is the harmless mistake. Of a
 * longer run both ends do, since an escape such as `\b` may stand before an id.
 */
const namesIn = (json: string): string[] => [
  ...new Set(json.match(/[0-9a-f]{64,}/g)?.flatMap((run) => [run.slice(0, 64), run.slice(-64)])),
]

/** Whether the payload of a row stands for one that is kept apart. Its first key says so, as `isLarge` sees it. */
export function isClaim(payload: unknown): payload is Claim {
  if (typeof payload !== 'object' || payload === null || !(mark in payload)) return false
  return Object.keys(payload)[0] === mark
}

/** The claim that the JSON of a row is; undefined when the JSON is the payload itself. */
export const readClaim = (json: string): Claim | undefined =>
  json.startsWith(prefix) ? (JSON.parse(json) as Claim) : undefined

/**
 * The payload that a claim stands for.
 *
 * @throws PAYLOAD_UNAVAILABLE, PAYLOAD_LOST
 */
export async function redeem(
  claim: Claim,
  payloads: PayloadStore | undefined,
  signal?: AbortSignal,
): Promise<unknown> {
  const json = await loadClaimed(claim, payloads, signal)
  try {
    return JSON.parse(json) as unknown
  } catch {
    // Without the message: it shows a piece of the payload.
    throw PAYLOAD_LOST({ reason: 'another text lies in its place' })
  }
}

/**
 * The JSON of the payload that the JSON of a row stands for, as it was given.
 *
 * @throws PAYLOAD_UNAVAILABLE, PAYLOAD_LOST
 */
export async function redeemText(json: string, payloads: PayloadStore): Promise<string> {
  const claim = readClaim(json)
  return claim ? loadClaimed(claim, payloads) : json
}

async function loadClaimed(
  claim: Claim,
  payloads: PayloadStore | undefined,
  signal?: AbortSignal,
): Promise<string> {
  const { [mark]: reference, bytes } = claim
  if (typeof reference !== 'string' || !referenceForm.test(reference)) {
    throw PAYLOAD_LOST({ reason: 'its row does not say where it is' })
  }
  if (!payloads)
    throw PAYLOAD_UNAVAILABLE({ reason: 'this process has no store for it' }, { retryAfterMs: 5_000 })
  const json = await payloads.load(reference, signal)
  if (Buffer.byteLength(json) !== bytes) throw PAYLOAD_LOST({ reason: 'another text lies in its place' })
  return json
}

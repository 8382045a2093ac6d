import type { Clock } from '../../core/clock.ts'
import { withLimit } from '../../core/lifecycle.ts'
import type { Log } from '../../platform/log.ts'
import { PAYLOAD_LOST, PAYLOAD_UNAVAILABLE } from '../../platform/queues/errors.ts'
import { claimFor, isLarge, readClaim, redeemText } from '../../platform/queues/payload-claim.ts'
import type { PayloadStore } from '../../platform/queues/payload-store.ts'
import { createTroubleLog } from '../../platform/trouble-log.ts'
import { PUSH_PAYLOAD_UNAVAILABLE } from './errors.ts'
import { createHeldPayloads } from './held-payloads.ts'
import type { NewPush } from './push.ts'

/** Payloads of more than 16 KiB lie in the stores of bodies, once for however many devices; a row names its body. */
export interface PushPayloads {
  /**
   * The same pushes, ready to be inserted. It may take seconds while the stores are slow: not within a transaction.
   * @throws PUSH_PAYLOAD_UNAVAILABLE when the stores take nothing now and one is for many devices, or cannot stay in
   *   its row since it looks like a claim
   */
  claim(pushes: NewPush[]): Promise<NewPush[]>
  /** Bytes of the payload that a row stands for. */
  sizeOf(payload: string): number
  /**
   * The payload that a row stands for, as it was sent.
   * @throws PAYLOAD_LOST when no sound copy is left; anything else when it cannot be read now, soon enough
   */
  redeem(payload: string): Promise<string>
  /** Calls back when what could not be redeemed can be, a second or so later. @returns what takes the wish back */
  whenReadable(payload: string, onReadable: () => void): () => void
}

/** A group is woken at once: its devices share what one of them has read. Bytes. */
const mostKept = 8_388_608
const retryAfterMs = 5_000
/** Longer a listen or a cloud push does not wait for a store, ms. */
const redeemWithinMs = 5_000

export interface PushPayloadsOptions {
  store: PayloadStore
  clock: Clock
  log: Log
}

export function createPushPayloads({ store, clock, log }: PushPayloadsOptions): PushPayloads {
  const load = createRecent((payload) => redeemText(payload, store))
  const troubles = createTroubleLog(log, clock)
  const redeem = async (payload: string): Promise<string> => {
    try {
      return await withLimit(load(payload), redeemWithinMs)
    } catch (error) {
      troubles.tell('the payload of a push cannot be read', error)
      throw error
    }
  }
  const held = createHeldPayloads({
    // One that is lost is no matter of time.
    isReadable: (payload) =>
      redeem(payload).then(
        () => true,
        (error: unknown) => PAYLOAD_LOST.is(error),
      ),
    clock,
  })
  return {
    claim: (pushes) => claimAll(pushes, store),
    sizeOf: (payload) => readClaim(payload)?.bytes ?? Buffer.byteLength(payload),
    redeem: async (payload) => (readClaim(payload) ? redeem(payload) : payload),
    whenReadable: held.hold,
  }
}

interface ClaimedPayload {
  payload: string
  payloadCopies?: 1
}

/**
 * What several pushes of a request have in common is put away once: the same body waits for itself. One that the rows
 * of many devices cannot have instead may begin with a single copy.
 */
async function claimAll(pushes: NewPush[], store: PayloadStore): Promise<NewPush[]> {
  const shared = new Set(pushes.filter(({ to }) => !('device' in to)).map(({ payload }) => payload))
  const claims = new Map<string, Promise<ClaimedPayload>>()
  const claimOnce = (payload: string): Promise<ClaimedPayload> => {
    const claiming = claims.get(payload) ?? claimPayload(payload, store, shared.has(payload))
    claims.set(payload, claiming)
    return claiming
  }
  return Promise.all(
    pushes.map(async (push) => {
      const { payload, to } = push
      if (payload === undefined || !isLarge(payload)) return push
      const claimed = await claimOnce(payload)
      if (claimed.payload === payload && !('device' in to)) throw unavailable(payload, 'for several devices')
      return { ...push, ...claimed }
    }),
  )
}

async function claimPayload(
  payload: string,
  store: PayloadStore,
  isShared: boolean,
): Promise<ClaimedPayload> {
  let copies: { payloadCopies?: 1 } = {}
  const single = {
    onSingleCopy: () => {
      copies = { payloadCopies: 1 }
    },
  }
  try {
    // However many bodies it names: in the rows of all devices the payload itself would take more room.
    const mostNames = Number.POSITIVE_INFINITY
    const claim = await claimFor(payload, store, { mostNames, single: isShared ? single : undefined })
    return { payload: claim, ...copies }
  } catch (error) {
    // Its words are for jobs.
    if (PAYLOAD_UNAVAILABLE.is(error)) throw unavailable(payload, 'that begins with baton:payload')
    throw error
  }
}

const unavailable = (payload: string, why: string): Error =>
  PUSH_PAYLOAD_UNAVAILABLE({ size: Buffer.byteLength(payload), why }, { retryAfterMs })

/** One reading for all who ask for the same at about the same time. What was read never changes. */
function createRecent(load: (payload: string) => Promise<string>): (payload: string) => Promise<string> {
  const kept = new Map<string, Promise<string>>()
  let bytes = 0
  const drop = (payload: string): void => {
    if (kept.delete(payload)) bytes -= readClaim(payload)?.bytes ?? 0
  }
  return (payload) => {
    const known = kept.get(payload)
    if (known) return known
    const loading = load(payload)
    kept.set(payload, loading)
    bytes += readClaim(payload)?.bytes ?? 0
    loading.catch(() => drop(payload))
    for (const oldest of kept.keys()) {
      if (bytes <= mostKept) break
      drop(oldest)
    }
    return loading
  }
}

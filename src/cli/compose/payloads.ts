import { type BatonError, messageOf } from '../../core/errors.ts'
import { withLimit } from '../../core/lifecycle.ts'
import type { Bodies } from '../../domain/bodies/bodies.ts'
import { BODY_CORRUPT, BODY_ID_INVALID, BODY_NOT_FOUND } from '../../domain/bodies/errors.ts'
import { createPostgres } from '../../platform/postgres/postgres.ts'
import { PAYLOAD_LOST, PAYLOAD_UNAVAILABLE } from '../../platform/queues/errors.ts'
import type { PayloadStore } from '../../platform/queues/payload-store.ts'
import { createTroubleLog } from '../../platform/trouble-log.ts'
import type { Ground } from '../compose.ts'
import { createSiteBodies } from './site-bodies.ts'

/**
 * Whoever puts a payload away may hold a connection already, within a transaction: from the same pool all of them
 * could wait for each other. Opened when the first large payload comes, closed when none came for a while.
 */
const pool = { max: 2, maxWaitMs: 3_000, queryTimeoutMs: 5_000 }
/** Then the payload stays in its row instead, ms. */
const storeWithinMs = 5_000
/** A store that does not answer so soon is passed over for the other copy: somebody waits, for a MiB at most, ms. */
const timeoutMs = 2_000
/** A job whose payload cannot be read comes again after this time, ms. */
const againMs = 5_000

/** Payloads as bodies. Nothing is opened before it is used. */
export function createPayloads(ground: Omit<Ground, 'payloads'>): PayloadStore {
  const { clock, log, releasers } = ground
  const troubles = createTroubleLog(log, clock)
  let opened: { bodies: Bodies; close(): Promise<void> } | undefined
  const bodies = (): Bodies => (opened ??= openBodies(ground)).bodies
  releasers.add('payloads', async () => opened?.close())

  return {
    store: async (json, wish) => {
      try {
        const put = bodies().put(oneChunk(Buffer.from(json)), {
          signal: AbortSignal.timeout(storeWithinMs),
          minCopies: wish ? 1 : 2,
        })
        const { id, copies } = await withLimit(put, storeWithinMs)
        if (copies < 2) wish?.onSingleCopy()
        return id
      } catch (error) {
        troubles.tell('a large payload could not be put away', error)
        return undefined
      }
    },
    load: async (reference, signal) => {
      try {
        const { stream } = await bodies().get(reference, signal ? { signal } : {})
        return Buffer.concat((await stream.toArray(signal ? { signal } : {})) as Buffer[]).toString('utf8')
      } catch (error) {
        throw payloadError(error)
      }
    },
  }
}

function openBodies({ config, clock, log, metrics, postgres }: Omit<Ground, 'payloads'>): {
  bodies: Bodies
  close(): Promise<void>
} {
  const own = createPostgres({
    ...pool,
    url: postgres.url,
    applicationName: 'baton payloads',
    onError: (error) => log.warn({ reason: messageOf(error) }, 'a connection has trouble'),
  })
  const bodies = createSiteBodies({ config, postgres: own, clock, log, metrics, timeoutMs })
  const close = async (): Promise<void> => {
    await bodies.close()
    await own.close()
  }
  return { bodies, close }
}

const lost = [BODY_CORRUPT, BODY_NOT_FOUND, BODY_ID_INVALID]

/** Only what every store has said, or what every copy has shown, is for ever. */
function payloadError(error: unknown): BatonError {
  const reason = messageOf(error).replace(/\.$/, '')
  if (lost.some((kind) => kind.is(error))) return PAYLOAD_LOST({ reason }, { cause: error })
  const retryAfterMs = againMs * (1 + Math.random())
  return PAYLOAD_UNAVAILABLE({ reason }, { cause: error, retryAfterMs })
}

async function* oneChunk(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

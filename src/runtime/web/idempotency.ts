import { sha256 } from '../../core/digest.ts'
import { BatonError } from '../../core/errors.ts'
import type { Client, Postgres } from '../../platform/postgres/postgres.ts'
import { IDEMPOTENCY_KEY_REUSED } from './errors.ts'

/** What makes two requests the same one. */
export interface IdempotentRequest {
  /** Whose key it is: the same word of two API keys is two keys. */
  owner: string
  /** What the client sent as Idempotency-Key. */
  key: string
  /** Method and path, so that a key is not answered with another route's answer. */
  route: string
  body: Buffer | string
}

export interface Answer {
  status: number
  /** JSON text. */
  text: string
}

export interface Idempotency {
  /**
   * Does the work once for all requests with the same key within 24 hours, and gives them all the same answer.
   * The work's rows and the answer are committed together: after a crash there are both or neither.
   * An error is not kept: the same key may be tried again.
   *
   * @throws IDEMPOTENCY_KEY_REUSED when the key was used for another request
   */
  once(
    request: IdempotentRequest,
    work: (client: Client) => Promise<Answer>,
  ): Promise<Answer & { replayed: boolean }>
  /** Forgets keys that are older than 24 hours, in bounded bites. @returns how many */
  prune(limit: number): Promise<number>
}

interface Kept extends Answer {
  requestSha256: string
}

/** Another holder of the key may roll back between our insert and our look; then it is our turn. */
const maxRounds = 5

export function createIdempotency(options: { postgres: Postgres }): Idempotency {
  const { postgres } = options
  // Requests with one key wait here and not in the database, where each would hold a connection.
  const underWay = new Map<string, Promise<Kept>>()

  const first = async (
    request: IdempotentRequest,
    digest: string,
    work: (client: Client) => Promise<Answer>,
  ) => {
    for (let round = 0; round < maxRounds; round++) {
      const kept = await postgres.transaction((client) => claim(client, { request, digest }, work))
      if (kept) return kept
    }
    throw new Error('an Idempotency-Key changes hands faster than it can be looked up')
  }

  return {
    once: async (request, work) => {
      const digest = digestOf(request)
      const place = `${request.owner} ${request.key}`
      for (let other = underWay.get(place); other; other = underWay.get(place)) {
        const kept = await other.catch(shareOutage)
        if (kept) return { ...sameOnly(kept, request, digest), replayed: true }
      }
      let mine = false
      const task = first(request, digest, (client) => {
        mine = true
        return work(client)
      })
      underWay.set(place, task)
      try {
        return { ...sameOnly(await task, request, digest), replayed: !mine }
      } finally {
        underWay.delete(place)
      }
    },
    prune: async (limit) => {
      const { rowCount } = await postgres.query(
        `DELETE FROM idempotency_keys WHERE (owner, key) IN (
           SELECT owner, key FROM idempotency_keys WHERE created_at < now() - interval '24 hours'
           ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED)`,
        [limit],
      )
      return rowCount ?? 0
    },
  }
}

/** While the database is away, those who wait do not try it one after the other. */
function shareOutage(error: unknown): undefined {
  if (error instanceof BatonError && error.traits.status >= 500) throw error
}

const digestOf = (request: IdempotentRequest): string =>
  sha256(Buffer.concat([Buffer.from(`${request.route}\n`), Buffer.from(request.body)]))

function sameOnly(kept: Kept, request: IdempotentRequest, digest: string): Answer {
  if (kept.requestSha256 !== digest) throw IDEMPOTENCY_KEY_REUSED({ key: request.key })
  return { status: kept.status, text: kept.text }
}

/** Takes the key and does the work, or gives what whoever took it before has left; undefined: that one is gone. */
async function claim(
  client: Client,
  { request, digest }: { request: IdempotentRequest; digest: string },
  work: (client: Client) => Promise<Answer>,
): Promise<Kept | undefined> {
  const id = [request.owner, request.key]
  // Waits for the end of another transaction that holds the key.
  const { rowCount: taken } = await client.query(
    {
      name: 'idempotency-claim',
      text: `INSERT INTO idempotency_keys AS kept (owner, key, request_sha256, status, response)
             VALUES ($1, $2, $3, 0, 'null')
             ON CONFLICT (owner, key) DO UPDATE
               SET request_sha256 = excluded.request_sha256, created_at = now()
               WHERE kept.created_at < now() - interval '24 hours'`,
    },
    [...id, digest],
  )
  if (taken === 0) return keptOf(client, id)
  const answer = await work(client)
  await client.query(
    {
      name: 'idempotency-answer',
      text: 'UPDATE idempotency_keys SET status = $3, response = $4 WHERE owner = $1 AND key = $2',
    },
    [...id, answer.status, answer.text],
  )
  return { ...answer, requestSha256: digest }
}

async function keptOf(client: Client, id: string[]): Promise<Kept | undefined> {
  const { rows } = await client.query<{ request_sha256: string; status: number; text: string }>(
    `SELECT request_sha256, status, response::text AS text FROM idempotency_keys WHERE owner = $1 AND key = $2`,
    id,
  )
  const [row] = rows
  return row && { requestSha256: row.request_sha256, status: row.status, text: row.text }
}

import type pg from 'pg'
import { messageOf } from '../../core/errors.ts'

/** Whether the driver has given up waiting for an answer: the statement may have been carried out all the same. */
export const isUnanswered = (error: unknown): boolean => messageOf(error).includes('Query read timeout')

/**
 * Ends the connections that nobody uses just now. When one has died without a word those beside it have too, as they
 * go the same way; each of them would cost its next caller the same wait.
 */
export function dropIdle(pool: Pick<pg.Pool, 'idleCount'> & { connect(): Promise<pg.PoolClient> }): void {
  for (let left = pool.idleCount; left > 0; left--) {
    pool.connect().then(
      (client) => client.release(true),
      () => undefined,
    )
  }
}

/**
 * Asks a connection that only listens now and then whether it still lives: nobody else would notice that it does not.
 *
 * @returns ends the asking
 */
export function watchListener(client: pg.PoolClient): () => void {
  const ask = (): void => {
    const question = { text: 'SELECT 1', query_timeout: answerWithinMs }
    client.query(question).catch(() => client.connection.stream.destroy())
  }
  const timer = setInterval(ask, askEveryMs).unref()
  return () => clearInterval(timer)
}

const askEveryMs = 10_000
const answerWithinMs = 5_000

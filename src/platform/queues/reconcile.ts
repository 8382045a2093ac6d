import type { Clock } from '../../core/clock.ts'
import type { Service } from '../../core/lifecycle.ts'
import type { Postgres } from '../postgres/postgres.ts'
import { connectOnce, type Session } from '../postgres/session.ts'
import type { QueueBackend } from './backend.ts'
import type { Ledger } from './ledger.ts'
import { unqueuedChannel } from './ledger-sql.ts'
import { createReconcilePass, type ReconcilePass, type Repairs } from './reconcile-pass.ts'

export interface ReconcilerOptions {
  postgres: Postgres
  ledger: Ledger
  backend: QueueBackend
  /** Those of the registry; others that the ledger has met are looked after too. */
  queues: readonly string[]
  clock: Clock
  retention: { finishedMs: number; failedMs: number }
  onError(error: unknown): void
  /** Told after a pass that had something to mend. For metrics and the log. */
  onRepaired?(repairs: Repairs): void
  /** Pause between two passes, ms; 1,000 unless said. */
  everyMs?: number
  /** How long a due row may be left alone before its entry is taken for lost, ms; 15,000 unless said. */
  overdueMs?: number
}

/** Any number will do, as long as every release takes the same one. */
const lockKey = 0x6261_7272
/** Of the session that has the lock, ms. A connection that died without a word is noticed by nothing else. */
const answerMs = 5_000

/**
 * Step 7 of docs/protocols/jobs.md. Any number of processes may run one; the one that has the advisory lock works.
 *
 * The lock belongs to a session of its own, not to the transaction of a pass: so there is one leader with one set of
 * cursors, where a lock a pass would let every process of the cluster make its own pass each second. When the leader
 * dies its session ends and the next process takes over within a second. One that is frozen would keep the lock for
 * ever, so Postgres (14 and later) is told to end the session when it is silent for 10 s.
 */
export function createReconciler(options: ReconcilerOptions): Service {
  const { clock, onError } = options
  const everyMs = options.everyMs ?? 1_000
  const stopping = new AbortController()
  let running: Promise<void> | undefined
  let wake = new AbortController()

  const lead = async (session: Session): Promise<void> => {
    const lost = AbortSignal.any([stopping.signal, abortedWhen(session.ended)])
    let pass: ReconcilePass | undefined
    while (!lost.aborted) {
      wake = new AbortController()
      if (await takesLock(session, pass !== undefined)) {
        pass ??= createReconcilePass(options)
        const more = await pass.run(lost)
        if (more) continue
      }
      await clock.sleep(everyMs, AbortSignal.any([lost, wake.signal]))
    }
  }

  const run = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      let session: Session | undefined
      try {
        session = await listen(options.postgres.url, () => wake.abort())
        await lead(session)
      } catch (error) {
        if (!stopping.signal.aborted) onError(error)
      } finally {
        await session?.close()
      }
      await clock.sleep(everyMs, stopping.signal)
    }
  }

  return {
    start: async () => void (running ??= run()),
    stop: async () => {
      stopping.abort()
      await running
    },
  }
}

async function listen(url: string, onNotice: () => void): Promise<Session> {
  const session = await connectOnce(url, 'baton reconciler', answerMs)
  session.client.on('notification', onNotice)
  try {
    await session.client.query(`SELECT set_config('statement_timeout', '10s', false)`)
    // Postgres 13 does not know the setting and says so; there a frozen leader is left to TCP.
    await session.client.query(`SET idle_session_timeout = '10s'`).catch(() => undefined)
    await session.client.query(`LISTEN ${unqueuedChannel}`)
    return session
  } catch (error) {
    await session.close()
    throw error
  }
}

/** The leader asks too: an answer proves that its session, and with it the lock, still stands. */
async function takesLock(session: Session, isLeader: boolean): Promise<boolean> {
  if (isLeader) {
    await session.client.query('SELECT 1')
    return true
  }
  const { rows } = await session.client.query<{ taken: boolean }>(
    'SELECT pg_try_advisory_lock($1) AS taken',
    [lockKey],
  )
  return rows[0]?.taken ?? false
}

function abortedWhen(event: Promise<void>): AbortSignal {
  const controller = new AbortController()
  void event.then(() => controller.abort())
  return controller.signal
}

import { messageOf } from '../../core/errors.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import type { Link } from './link.ts'
import type { ReplicaRow, Verified } from './replica-rows.ts'
import { type VerifyParts, verify } from './verify.ts'

export interface VerifierParts extends VerifyParts {
  /** Whether all that was there before the triggers is handed over: before, nothing can be compared. */
  isSeeded(): Promise<boolean>
}

/** Verifies a replica when somebody asks for it, and nightly. */
export interface Verifier {
  /** Begins one when it is time and none is under way. */
  look(link: Link, row: ReplicaRow): void
  idle(): Promise<void>
}

const dayMs = 86_400_000
/** After one that could not be brought to its end, ms. */
const againMs = 60_000

export function createVerifier(parts: VerifierParts, signal: AbortSignal): Verifier {
  let running: Promise<void> | undefined
  let notBeforeMs = Number.NEGATIVE_INFINITY

  const run = async (link: Link, row: ReplicaRow): Promise<void> => {
    try {
      if (!(await parts.isSeeded())) {
        notBeforeMs = link.clock.monotonicMs() + 1_000
        return
      }
      const startedAt = await instantOf(link.postgres)
      const verified = await verify(link, parts, { fromRows: true, signal })
      await record(link.postgres, { name: row.name, startedAt }, verified)
      if (verified.differing > 0) {
        link.log.warn({ replica: row.name, ...verified }, 'A verification has found objects that differ')
      }
    } catch (error) {
      if (signal.aborted) return
      notBeforeMs = link.clock.monotonicMs() + againMs
      link.log.warn({ replica: row.name, reason: messageOf(error) }, 'A verification did not come to its end')
    }
  }

  return {
    look: (link, row) => {
      if (running || link.clock.monotonicMs() < notBeforeMs || !isDue(link, row)) return
      running = run(link, row).finally(() => (running = undefined))
    },
    idle: async () => running,
  }
}

/** A day after the last one; a replica that was never verified is, as soon as it has all. */
const isDue = ({ clock }: Link, { verifyWantedAt, verifiedAt }: ReplicaRow): boolean =>
  verifyWantedAt !== null || verifiedAt === null || clock.now() - Date.parse(verifiedAt) > dayMs

async function instantOf(postgres: Postgres): Promise<string> {
  const { rows } = await postgres.query<{ now: string }>('SELECT now()::text AS now')
  return rows[0]?.now ?? 'epoch'
}

/** A wish that came while it ran is for another one. */
async function record(
  postgres: Postgres,
  { name, startedAt }: { name: string; startedAt: string },
  verified: Verified,
): Promise<void> {
  await postgres.query(
    `UPDATE replicas SET verified = $2, verified_at = now(),
       verify_wanted_at = CASE WHEN verify_wanted_at > $3::timestamptz THEN verify_wanted_at END
     WHERE name = $1`,
    [name, JSON.stringify(verified), startedAt],
  )
}

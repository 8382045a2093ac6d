import { type BatonError, codeOf } from '../../../core/errors.ts'
import type { Postgres, Queryable } from '../../../platform/postgres/postgres.ts'
import { FAIL_OVER_MOVED_ON, FAIL_OVER_RUNNING } from './errors.ts'

export type Mode = 'rehearse' | 'soft' | 'hard'
export type Phase =
  | 'preflight'
  | 'draining'
  | 'closed'
  | 'flushing'
  | 'promoting'
  | 'demoting'
  | 'done'
  | 'refused'
  | 'aborted'

/** Before `promoting` nobody else was asked to open. */
export const abortable: ReadonlySet<Phase> = new Set(['preflight', 'draining', 'closed', 'flushing'])

export interface FailOver {
  id: string
  mode: Mode
  /** The site that opens. */
  target: string
  phase: Phase
  /** After it. */
  epoch: number | null
  /** Positions by shard: of the heads, or with `hard` of what the site that opens had. */
  heads: number[] | null
  /** Set while it is being given up, and when it was. */
  error: { code: string; message: string } | null
  /** Phases in their order, the last is the current one; `at` in ISO 8601. */
  log: { phase: Phase; at: string }[]
  report: Record<string, unknown> | null
  actor: string
  createdAt: Date
  finishedAt: Date | null
  /** How long it is in its phase, by the clock of Postgres. */
  inPhaseMs: number
}

export interface Beginning {
  id: string
  mode: Mode
  target: string
  phase: Phase
  actor: string
  epoch?: number
  heads?: number[]
}

export interface Values {
  epoch?: number
  heads?: number[]
  error?: BatonError
  report?: Record<string, unknown>
}

/**
 * The rows of `fail_overs`. One of them at most is under way. Every change names the phase that it found, so that of two
 * runners one changes and the other is told.
 */
export interface FailOverRows {
  running(): Promise<FailOver | undefined>
  /** Newest first. */
  list(limit: number): Promise<FailOver[]>
  /** @throws FAIL_OVER_RUNNING */
  begin(beginning: Beginning, database?: Queryable): Promise<FailOver>
  /** To a later phase; not while it is being given up. @returns false when somebody else was first */
  advance(from: FailOver, to: Phase, values?: Values): Promise<boolean>
  /** Marks it as being given up: from then on no phase goes on. @returns false when it is too late */
  giveUp(id: string, error: BatonError): Promise<boolean>
  finish(from: FailOver, phase: 'done' | 'refused' | 'aborted', values?: Values): Promise<boolean>
  /** Keeps what people are to know meanwhile. */
  note(id: string, report: Record<string, unknown>): Promise<void>
  /**
   * A Postgres whose transactions hold `from` in its phase until they end, and do nothing when it is not there any more: a
   * process that slept for a minute must not close a site that is open again.
   */
  guarding(from: FailOver, isGivenUp: boolean): Postgres
}

interface FailOverRow extends Omit<FailOver, 'epoch' | 'createdAt' | 'finishedAt' | 'inPhaseMs'> {
  epoch: string | null
  created_at: Date
  finished_at: Date | null
  in_phase_ms: string
}

const columns = `id, mode, target, phase, epoch, heads, error, log, report, actor, created_at, finished_at,
  extract(epoch FROM clock_timestamp() - (log -> -1 ->> 'at')::timestamptz) * 1000 AS in_phase_ms`
const entry = (phase: string): string =>
  `jsonb_build_array(jsonb_build_object('phase', ${phase}::text,
     'at', to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')))`
const uniqueViolation = '23505'

export function createFailOverRows(postgres: Postgres): FailOverRows {
  const move = async (from: FailOver, to: Phase, { values = {}, where }: Move): Promise<boolean> => {
    const { rowCount } = await postgres.query(
      `UPDATE fail_overs SET phase = $3, epoch = coalesce($4, epoch), heads = coalesce($5, heads),
         error = coalesce($6, error), report = coalesce($7, report), updated_at = now(),
         log = log || ${entry('$3')},
         finished_at = CASE WHEN $3::text IN ('done', 'refused', 'aborted') THEN now() END
       WHERE id = $1 AND phase = $2 AND finished_at IS NULL AND ${where}`,
      [from.id, from.phase, to, values.epoch ?? null, ...jsonOf(values)],
    )
    return rowCount === 1
  }
  return {
    running: async () => (await select(postgres, 'WHERE finished_at IS NULL'))[0],
    list: (limit) => select(postgres, 'ORDER BY created_at DESC, id DESC LIMIT $1', [limit]),
    begin: (beginning, database = postgres) => begin(database, beginning),
    advance: (from, to, values) => move(from, to, { values, where: 'error IS NULL' }),
    giveUp: async (id, error) => {
      const { rowCount } = await postgres.query(
        `UPDATE fail_overs SET error = coalesce(error, $2), abort_wanted = true, updated_at = now()
         WHERE id = $1 AND finished_at IS NULL AND phase = ANY ($3)`,
        [id, shown(error), [...abortable]],
      )
      return rowCount === 1
    },
    finish: (from, phase, values) => move(from, phase, { values, where: 'true' }),
    note: async (id, report) => {
      await postgres.query('UPDATE fail_overs SET report = $2 WHERE id = $1', [id, JSON.stringify(report)])
    },
    guarding: (from, isGivenUp) => guard(postgres, from, isGivenUp),
  }
}

interface Move {
  values?: Values | undefined
  where: string
}

const jsonOf = ({ heads, error, report }: Values): (string | null)[] => [
  heads ? JSON.stringify(heads) : null,
  error ? shown(error) : null,
  report ? JSON.stringify(report) : null,
]

const shown = ({ code, message }: BatonError): string => JSON.stringify({ code, message })

async function begin(database: Queryable, beginning: Beginning): Promise<FailOver> {
  const { id, mode, target, phase, actor, epoch, heads } = beginning
  try {
    await database.query(
      `INSERT INTO fail_overs (id, mode, target, phase, actor, epoch, heads, log)
       VALUES ($1, $2, $3, $4, $5, $6, $7, ${entry('$4')})`,
      [id, mode, target, phase, actor, epoch ?? null, heads ? JSON.stringify(heads) : null],
    )
  } catch (error) {
    if (codeOf(error) === uniqueViolation) throw FAIL_OVER_RUNNING({}, { cause: error })
    throw error
  }
  const [begun] = await select(database, 'WHERE id = $1', [id])
  if (!begun) throw new Error(`the fail-over ${id} is gone`)
  return begun
}

async function select(database: Queryable, rest: string, values: unknown[] = []): Promise<FailOver[]> {
  const { rows } = await database.query<FailOverRow>(`SELECT ${columns} FROM fail_overs ${rest}`, values)
  return rows.map(({ epoch, created_at, finished_at, in_phase_ms, ...row }) => ({
    ...row,
    epoch: epoch === null ? null : Number(epoch),
    createdAt: created_at,
    finishedAt: finished_at,
    inPhaseMs: Number(in_phase_ms),
  }))
}

function guard(postgres: Postgres, from: FailOver, isGivenUp: boolean): Postgres {
  const transaction: Postgres['transaction'] = (work) =>
    postgres.transaction(async (client) => {
      const { rowCount } = await client.query(
        `SELECT FROM fail_overs WHERE id = $1 AND phase = $2 AND finished_at IS NULL AND (error IS NULL) <> $3 FOR SHARE`,
        [from.id, from.phase, isGivenUp],
      )
      if (rowCount !== 1) throw FAIL_OVER_MOVED_ON({ phase: from.phase })
      return work(client)
    })
  return {
    query: (sql, values) => postgres.query(sql, values),
    transaction,
    load: () => postgres.load(),
    pool: postgres.pool,
    url: postgres.url,
    close: () => postgres.close(),
  }
}

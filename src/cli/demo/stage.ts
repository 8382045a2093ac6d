import type { EmbeddedPostgres } from '../../platform/postgres/embedded.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import type { JobView } from '../../platform/queues/ledger.ts'
import type { BatonProcess } from '../child-process.ts'
import type { WebClient } from '../web-client.ts'

/** What the scenes of the demo play with: real processes, a real database, and the HTTP contract. */
export interface Stage {
  readonly client: WebClient
  /** To another web tier, as the same operator. */
  connect(address: string): WebClient
  /** Of an operator, at every web tier of the demo. */
  readonly key: string
  readonly postgres: Postgres
  readonly databaseUrl: string
  /** For what the scenes lay down; goes with the demo. */
  readonly folder: string
  /** The database server; absent when DATABASE_URL names one that is not ours to kill. */
  readonly server: EmbeddedPostgres | undefined
  worker(): BatonProcess
  /** Starts a worker in place of one that has ended; resolves when its children take jobs. */
  startWorker(): Promise<void>
  /** Starts another of Baton's processes, with settings over those of the demo. It ends with the demo at the latest. */
  start(verb: string, settings?: Record<string, string>): BatonProcess
  /** Done at the end of the demo, also of one that is stopped; what is given last is done first. */
  atEnd(step: () => Promise<unknown>): void
  /** A line of the story. */
  say(line: string): void
  /** A promise, and whether it held. One that did not makes the demo end with 1. */
  promise(text: string, held: boolean): void
}

export interface Scene {
  title: string
  play(stage: Stage): Promise<void>
}

export interface Enqueued {
  id: string
}

/** Polls until `look` gives something. @throws an Error naming what was waited for, after `limitMs` */
export async function until<T>(
  what: string,
  limitMs: number,
  look: () => Promise<T | undefined | false>,
): Promise<T> {
  const deadline = performance.now() + limitMs
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (performance.now() > deadline) throw new Error(`waited ${limitMs / 1_000} s in vain for ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
}

export const finished = (stage: Stage, id: string, limitMs: number): Promise<JobView> =>
  until(`the job ${id} to finish`, limitMs, async () => {
    const job = await stage.client.call<JobView>('GET', `/v1/jobs/${id}`)
    return job.finishedAt ? job : undefined
  })

export async function countRows(stage: Stage, sql: string, values: unknown[] = []): Promise<number> {
  const { rows } = await stage.postgres.query<{ count: number }>(sql, values)
  return rows[0]?.count ?? 0
}

/** Process ids of the worker's children that take jobs. */
export async function childPids(stage: Stage): Promise<number[]> {
  const { rows } = await stage.postgres.query<{ children: { pid: number; state: string }[] | null }>(
    `SELECT children FROM nodes WHERE pid = $1 AND heartbeat_at > now() - interval '4 s'`,
    [stage.worker().pid],
  )
  return (rows[0]?.children ?? []).filter((child) => child.state === 'up').map((child) => child.pid)
}

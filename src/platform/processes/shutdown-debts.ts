import { mkdirSync, writeFileSync } from 'node:fs'
import { mkdir, readdir, readFile, rm } from 'node:fs/promises'
import path from 'node:path'
import { messageOf } from '../../core/errors.ts'
import { withLimit } from '../../core/lifecycle.ts'
import type { Log } from '../log.ts'
import type { Postgres } from '../postgres/postgres.ts'

export interface Debt {
  hook: string
  reason: string
}

/** Shutdown hooks that did not fit before a deadline, kept for the next boot. */
export interface ShutdownDebts {
  /** To Postgres; to a file when that does not answer within `limitMs`. Never throws. */
  record(debts: Debt[], limitMs: number): Promise<void>
  /**
   * Calls `run` for each hook that is owed, once however often it is. True: it is done, the debt is deleted;
   * false: the debt stays.
   */
  settle(run: (hook: string) => Promise<boolean>): Promise<void>
}

export interface ShutdownDebtsOptions {
  postgres: Postgres
  node: string
  /** For files while Postgres is away, such as `.baton/shutdown-debts`. */
  folder: string
  log: Log
}

export function createShutdownDebts({ postgres, node, folder, log }: ShutdownDebtsOptions): ShutdownDebts {
  const toPostgres = (debts: Debt[]): Promise<unknown> =>
    postgres.query(
      `INSERT INTO shutdown_debts (hook, node, reason)
       SELECT hook, $1, reason FROM unnest($2::text[], $3::text[]) AS owed (hook, reason)`,
      [node, debts.map((debt) => debt.hook), debts.map((debt) => debt.reason)],
    )

  // Synchronous: what is awaited now may not come back before the deadline.
  const toFile = (debts: Debt[]): void => {
    mkdirSync(folder, { recursive: true })
    writeFileSync(path.join(folder, `${node}.json`), JSON.stringify(debts))
  }

  const settleRows = async (run: (hook: string) => Promise<boolean>): Promise<void> => {
    const { rows } = await postgres.query<{ hook: string; ids: string[] }>(
      'SELECT hook, array_agg(id::text) AS ids FROM shutdown_debts GROUP BY hook ORDER BY min(id)',
    )
    for (const { hook, ids } of rows) {
      // Two nodes that boot together may both run it: hooks bear that. Deleted after, so a crash keeps the debt.
      if (await run(hook)) {
        await postgres.query('DELETE FROM shutdown_debts WHERE id = ANY ($1::bigint[])', [ids])
      }
    }
  }

  /** Files become rows first, so that a debt has one place. */
  const adoptFiles = async (): Promise<void> => {
    const files = await readdir(folder).catch(() => [])
    for (const name of files.filter((each) => each.endsWith('.json'))) {
      const file = path.join(folder, name)
      await toPostgres(JSON.parse(await readFile(file, 'utf8')) as Debt[])
      await rm(file)
    }
  }

  return {
    record: async (debts, limitMs) => {
      try {
        await withLimit(toPostgres(debts), Math.max(1, limitMs / 2))
      } catch (error) {
        log.warn({ reason: messageOf(error) }, 'Postgres does not take the debts of the stop; writing a file')
        try {
          toFile(debts)
        } catch (fault) {
          log.error({ reason: messageOf(fault), hooks: debts.map((debt) => debt.hook) }, 'the debts are lost')
        }
      }
    },
    settle: async (run) => {
      await mkdir(folder, { recursive: true }).catch(() => undefined)
      try {
        await adoptFiles()
      } catch (error) {
        log.error({ reason: messageOf(error), folder }, 'the files of debts cannot be read')
      }
      await settleRows(run)
    },
  }
}

import type { Command } from 'commander'
import { createSystemClock } from '../../core/clock.ts'
import { isId } from '../../core/ids.ts'
import type { StateAdministration } from '../../domain/state/administration.ts'
import { scanUrls } from '../../domain/state/administration.ts'
import { MIGRATION_NOT_FOUND } from '../../domain/state/errors.ts'
import type { Migration } from '../../domain/state/migration/migration.ts'
import { summaryOf } from '../../domain/state/scan.ts'
import { loadConfig } from '../../platform/config/config.ts'
import { createLog } from '../../platform/log.ts'
import { INPUT_INVALID } from '../../platform/queues/errors.ts'
import type { Cli, RegisterVerb } from '../cli.ts'
import { connectState, withStates } from '../compose/state.ts'
import { runEngine, stopSignal } from '../state/engine.ts'
import { type MigrateOptions, migrate, printEnd } from '../state/migrate.ts'
import { cutOverPlan, resetPlan, rollBackPlan } from '../state/plans.ts'
import { scanLines, statusLines, troubleLines, verificationLines } from '../state/report.ts'
import { confirm, createProgressLine } from '../state/terminal.ts'

interface Which {
  from?: string
  to?: string
}

interface Output {
  json?: boolean
}

const urls = 'file:/dir/, zpush+postgres://… (Z-Push’s three tables) or postgres://… (Baton’s own)'

export const registerState: RegisterVerb = (program, cli) => {
  const state = program
    .command('state')
    .description('Moves the sync states of phones between stores, while the phones go on syncing.')
  registerScan(state, cli)
  registerMigrate(state, cli)
  registerStatus(state, cli)
  registerCutOver(state, cli)
  registerRollBack(state, cli)
  registerVerify(state, cli)
  registerReset(state, cli)
}

const withOpen = <T>(work: (states: StateAdministration) => Promise<T>): Promise<T> =>
  withStates(loadConfig(), work)

/** By its id, or by its two stores. @throws MIGRATION_NOT_FOUND */
async function which(
  states: StateAdministration,
  id: string | undefined,
  { from, to }: Which,
): Promise<Migration> {
  if (id !== undefined) {
    if (!isId(id)) throw MIGRATION_NOT_FOUND({ id })
    return states.get(id)
  }
  if (from === undefined || to === undefined) {
    throw INPUT_INVALID({ summary: 'give the id of a migration, or --from and --to' })
  }
  const found = await states.find(from, to)
  if (!found) throw MIGRATION_NOT_FOUND({ id: 'between these two stores' })
  return found
}

const addWhich = (command: Command): Command =>
  command
    .argument('[id]', 'the migration; or give --from and --to')
    .option('--from <url>', urls)
    .option('--to <url>', urls)
    .option('--json', 'print JSON')

function registerScan(state: Command, cli: Cli): void {
  state
    .command('scan')
    .description('Dry run: counts, sizes, time and every trouble by name. Reads everything, writes nothing.')
    .requiredOption('--from <url>', urls)
    .option('--to <url>', 'what it could hold; without it, Z-Push’s tables')
    .option('--all', 'list every trouble, not only the first three of a kind')
    .option('--json', 'print JSON')
    .action(async (options: Which & Output & { from: string; all?: boolean }) => {
      const log = createLog({ level: 'error', process: 'command' })
      const line = createProgressLine(cli)
      const report = await scanUrls(
        { clock: createSystemClock(), connect: (url) => connectState(url, log) },
        {
          from: options.from,
          to: options.to,
          signal: stopSignal(cli),
          onProgress: ({ devices, states }) =>
            line.show(0, undefined, `${devices} devices, ${states} states`),
        },
      ).finally(() => line.end())
      if (!options.json) return printAll(cli, scanLines(report, options.all ?? false))
      const { troubles, ...rest } = report
      cli.print(JSON.stringify({ ...rest, troubles: summaryOf(report, troubles.length).troubles }, null, 2))
    })
}

const printAll = (cli: Cli, lines: string[]): void => {
  for (const line of lines) cli.print(line)
}

function registerMigrate(state: Command, cli: Cli): void {
  state
    .command('migrate')
    .description(
      'Copies live, device by device, verified, until a cut-over would take seconds. Stopped or killed, it goes on where it was.',
    )
    .option('--from <url>', urls)
    .option('--to <url>', urls)
    .option(
      '--resume <id>',
      'go on with this one; after a storm: keep the target and let the phones in by portions',
    )
    .option('--cut-over', 'cut over as soon as it is ready')
    .option('--states-per-second <n>', 'at most so many')
    .option('--bytes-per-second <n>', 'at most so many')
    .option('--drain-quiet-ms <ms>', 'how long the source must be quiet at the cut-over (2000)')
    .option('--no-scan', 'do not scan for the plan')
    .option('--detach', 'leave the work to the workers')
    .option(
      '--watch',
      'with --resume after a cut-over: stay and watch, and close the gate when a storm breaks out',
    )
    .option('--yes', 'do not ask')
    .option('--json', 'print JSON')
    .action((options: MigrateOptions) => withOpen((states) => migrate(states, cli, options)))
}

function registerStatus(state: Command, cli: Cli): void {
  addWhich(state.command('status'))
    .description('Shows a migration, or all of them.')
    .option('--quarantine', 'list what was not moved, and what was moved with a remark')
    .action((id: string | undefined, options: Which & Output & { quarantine?: boolean }) =>
      withOpen(async (states) => {
        if (id === undefined && options.from === undefined) return printList(states, cli, options)
        const migration = await which(states, id, options)
        const view = await states.view(migration.id, options.quarantine ? 100_000 : 0)
        if (options.json) return cli.print(JSON.stringify(view, null, 2))
        printAll(cli, statusLines(view))
        const lines = view.quarantine.lines ?? []
        const byCode: Record<string, number> = {}
        for (const { code } of lines) byCode[code] = (byCode[code] ?? 0) + 1
        printAll(cli, troubleLines(lines, byCode, true))
      }),
    )
}

async function printList(states: StateAdministration, cli: Cli, { json }: Output): Promise<void> {
  const all = await states.list()
  if (json) return cli.print(JSON.stringify({ migrations: all }, null, 2))
  if (all.length === 0) cli.complain('There is no migration yet: baton state migrate --from URL --to URL')
  for (const view of all) printAll(cli, statusLines(view))
}

function registerCutOver(state: Command, cli: Cli): void {
  addWhich(state.command('cut-over'))
    .description(
      'Closes the gate of the source, copies and verifies the rest, and opens the target: seconds.',
    )
    .option('--yes', 'do not ask')
    .action((id: string | undefined, options: Which & Output & { yes?: boolean }) =>
      withOpen(async (states) => {
        const migration = await which(states, id, options)
        for (const line of cutOverPlan(await states.view(migration.id))) cli.complain(line)
        if (!(await confirm(cli, options.yes, 'Cut over?'))) return
        await states.request(migration.id, 'cut-over')
        const until = (each: Migration): boolean =>
          each.phase === 'watching' || each.paused || (each.phase === 'ready' && each.wanted === undefined)
        const over = await runEngine({ states, cli, id: migration.id, until })
        if (over) await printEnd(states, cli, { id: over.id, json: options.json, good: ['watching'] })
      }),
    )
}

function registerRollBack(state: Command, cli: Cli): void {
  addWhich(state.command('roll-back'))
    .description(
      'Brings what was written since the cut-over back to the source, verified, and opens it again.',
    )
    .option('--yes', 'do not ask')
    .action((id: string | undefined, options: Which & Output & { yes?: boolean }) =>
      withOpen(async (states) => {
        const migration = await which(states, id, options)
        for (const line of rollBackPlan(await states.view(migration.id))) cli.complain(line)
        if (!(await confirm(cli, options.yes, 'Roll back?'))) return
        if (migration.phase !== 'rolling-back') await states.request(migration.id, 'roll-back')
        const until = (each: Migration): boolean => each.phase === 'rolled-back' || each.paused
        const over = await runEngine({ states, cli, id: migration.id, until })
        if (over) await printEnd(states, cli, { id: over.id, json: options.json, good: ['rolled-back'] })
      }),
    )
}

function registerVerify(state: Command, cli: Cli): void {
  addWhich(state.command('verify'))
    .description(
      'Reads every state of both sides and compares them. Changes nothing. Exit code 1 when they differ.',
    )
    .action((id: string | undefined, options: Which & Output) =>
      withOpen(async (states) => {
        const migration = await which(states, id, options)
        const line = createProgressLine(cli)
        const { counts } = await states.view(migration.id)
        const verification = await states
          .verify(migration.id, {
            signal: stopSignal(cli),
            onProgress: (done) =>
              line.show(done.devices, counts.total, `${done.devices} devices, ${done.states} states equal`),
          })
          .finally(() => line.end())
        if (verification.differingDevices > 0) cli.exitCode = 1
        if (options.json) cli.print(JSON.stringify(verification, null, 2))
        else printAll(cli, verificationLines(verification))
      }),
    )
}

function registerReset(state: Command, cli: Cli): void {
  addWhich(state.command('reset'))
    .description('Ends a rehearsal: takes what was moved out of the target again and forgets the migration.')
    .option('--yes', 'do not ask')
    .action((id: string | undefined, options: Which & Output & { yes?: boolean }) =>
      withOpen(async (states) => {
        const migration = await which(states, id, options)
        const view = await states.view(migration.id)
        for (const line of resetPlan(view)) cli.complain(line)
        if (!(await confirm(cli, options.yes, 'Reset?'))) return
        const line = createProgressLine(cli)
        const removed = await states
          .reset(migration.id, (done) => line.show(done, view.counts.total, `${done} devices removed`))
          .finally(() => line.end())
        cli.print(
          options.json
            ? JSON.stringify({ removed })
            : `${removed} devices removed from the target; the migration is forgotten`,
        )
      }),
    )
}

import { createSystemClock } from '../../core/clock.ts'
import { isId } from '../../core/ids.ts'
import { type StateAdministration, scanUrls } from '../../domain/state/administration.ts'
import { MIGRATION_NOT_FOUND } from '../../domain/state/errors.ts'
import type { Migration, MigrationOptions, Phase } from '../../domain/state/migration/migration.ts'
import { maskUrl } from '../../domain/state/open-store.ts'
import type { ScanReport } from '../../domain/state/scan.ts'
import { loadConfig } from '../../platform/config/config.ts'
import { createLog } from '../../platform/log.ts'
import { INPUT_INVALID } from '../../platform/queues/errors.ts'
import type { Cli } from '../cli.ts'
import { withProducer } from '../compose/producer.ts'
import { connectState } from '../compose/state.ts'
import { runEngine } from './engine.ts'
import { copyPlan } from './plans.ts'
import { statusLines } from './report.ts'
import { confirm, createProgressLine } from './terminal.ts'

export interface MigrateOptions {
  from?: string
  to?: string
  resume?: string
  cutOver?: boolean
  statesPerSecond?: string
  bytesPerSecond?: string
  drainQuietMs?: string
  scan: boolean
  detach?: boolean
  watch?: boolean
  yes?: boolean
  json?: boolean
}

/** `baton state migrate`: plan, question, engine, and how it ended. */
export async function migrate(states: StateAdministration, cli: Cli, options: MigrateOptions): Promise<void> {
  const migration =
    options.resume === undefined
      ? await begin(states, cli, options)
      : await resume(states, cli, options.resume)
  if (!migration) return
  const { id } = migration
  if (options.detach) {
    await detach(id)
    cli.print(options.json ? JSON.stringify({ id }) : `${id}: the workers go on with it`)
    return
  }
  if (options.watch && migration.phase === 'watching') {
    cli.complain(
      'Watching the target and the source. Ctrl-C ends it; nothing depends on it but the storm guard.',
    )
    await runEngine({ states, cli, id, until: (each) => each.paused })
    return printEnd(states, cli, { id, json: options.json, good: ['watching', 'done', 'rolled-back'] })
  }
  const copied = await runEngine({ states, cli, id, until: isSettled })
  if (!copied) return
  if (options.cutOver && copied.phase === 'ready') {
    await states.request(id, 'cut-over')
    if (!(await runEngine({ states, cli, id, until: isSettled }))) return
  }
  const good: Phase[] = options.cutOver ? ['watching', 'done'] : ['ready', 'watching', 'done']
  await printEnd(states, cli, { id, json: options.json, good })
}

/** Nothing more happens without a person. After a storm: once all phones are in again. */
const isSettled = (each: Migration): boolean => {
  if (each.paused) return true
  if (each.wanted !== undefined) return false
  if (each.phase === 'watching') return each.admitted === undefined
  return each.phase === 'ready' || each.phase === 'done' || each.phase === 'rolled-back'
}

async function begin(
  states: StateAdministration,
  cli: Cli,
  options: MigrateOptions,
): Promise<Migration | undefined> {
  const { from, to } = options
  if (from === undefined || to === undefined) {
    throw INPUT_INVALID({ summary: 'give --from and --to, or --resume' })
  }
  const settings = settingsOf(options)
  const known = await states.find(from, to)
  if (known) {
    await states.start(from, to, settings)
    return resume(states, cli, known.id)
  }
  const report = options.scan ? await scan(cli, from, to) : undefined
  const rate = settings
  for (const line of copyPlan({
    from: maskUrl(from),
    to: maskUrl(to),
    report,
    rate,
    cutOver: options.cutOver ?? false,
  })) {
    cli.complain(line)
  }
  if (!(await confirm(cli, options.yes, 'Go on?'))) return undefined
  return states.start(from, to, settings)
}

async function resume(states: StateAdministration, cli: Cli, id: string): Promise<Migration> {
  if (!isId(id)) throw MIGRATION_NOT_FOUND({ id })
  const { phase } = await states.request(id, 'resume')
  cli.complain(`Going on with ${id}, which is ${phase}.`)
  return states.get(id)
}

async function scan(cli: Cli, from: string, to: string): Promise<ScanReport> {
  const log = createLog({ level: 'error', process: 'command' })
  const line = createProgressLine(cli)
  const tools = { clock: createSystemClock(), connect: (url: string) => connectState(url, log) }
  return scanUrls(tools, {
    from,
    to,
    onProgress: (done) => line.show(0, undefined, `scan: ${done.devices} devices, ${done.states} states`),
  }).finally(() => line.end())
}

function settingsOf(options: MigrateOptions): Partial<MigrationOptions> {
  const settings: Partial<MigrationOptions> = {}
  for (const key of ['statesPerSecond', 'bytesPerSecond', 'drainQuietMs'] as const) {
    const text = options[key]
    if (text === undefined) continue
    const value = Number(text)
    if (!Number.isInteger(value) || value < 1) {
      throw INPUT_INVALID({ summary: `${key} must be a whole number from 1` })
    }
    settings[key] = value
  }
  return settings
}

const detach = (id: string): Promise<void> =>
  withProducer(loadConfig(), async ({ registry, acceptance }) => {
    const job = registry.get('state-migration')
    await acceptance.accept([{ job, payload: { migration: id } }])
  })

export interface End {
  id: string
  json: boolean | undefined
  good: Phase[]
}

/** Says how it stands. Exit code 1 unless it is where it was to go and everything was moved. */
export async function printEnd(
  states: StateAdministration,
  cli: Cli,
  { id, json, good }: End,
): Promise<void> {
  const view = await states.view(id)
  if (json) cli.print(JSON.stringify(view, null, 2))
  else for (const line of statusLines(view)) cli.print(line)
  const left = view.quarantine.held + view.counts.failed
  if (view.paused || view.error || !good.includes(view.phase)) cli.exitCode = 1
  else if (left > 0 && view.phase !== 'rolled-back') {
    cli.exitCode = 1
    cli.complain(`baton: ${left} states or files were not moved: baton state status ${id} --quarantine`)
  }
  if (json || cli.exitCode !== 0) return
  if (view.phase === 'ready') cli.complain(`Ready: baton state cut-over ${id}`)
  if (view.phase === 'watching') {
    cli.complain('The target serves. Point Z-Push at it (config.php) and reload it.')
    cli.complain(
      `Stay with it: baton state migrate --resume ${id} --watch (or --detach, by the workers). Back: baton state roll-back ${id}`,
    )
  }
}

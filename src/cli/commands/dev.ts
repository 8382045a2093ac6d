import { createSystemClock } from '../../core/clock.ts'
import { type Config, loadConfig } from '../../platform/config/config.ts'
import { createLog } from '../../platform/log.ts'
import { handleStopSignals } from '../../platform/processes/signals.ts'
import { probePort } from '../../runtime/web/port.ts'
import { type BatonProcess, startBaton } from '../child-process.ts'
import type { Cli, RegisterVerb } from '../cli.ts'
import { openDatabase } from '../compose/database.ts'
import { readDevelopmentKeys } from '../development-keys.ts'
import { release } from '../release.ts'
import { waitUntilReady } from '../web-client.ts'

export const registerDev: RegisterVerb = (program, cli) => {
  program
    .command('dev')
    .description(
      'Runs everything for development: an embedded Postgres unless DATABASE_URL, release, web, worker.',
    )
    .action(() => runDev(loadConfig(), cli))
}

async function runDev(config: Config, cli: Cli): Promise<void> {
  const port = await probePort(config)
  const database = await openDatabase(config, createLog({ level: config.logLevel, process: 'dev' }))
  try {
    const applied = await release(database.url)
    if (applied.length > 0) cli.print(`database: applied ${applied.join(', ')}`)
    const keys = await readDevelopmentKeys()
    const environment = {
      DATABASE_URL: database.url,
      PORT: String(port),
      BATON_SECRET: config.secret ?? keys.secret,
      BATON_API_KEYS: [...config.apiKeys, `operator:${keys.operator}`, `producer:${keys.producer}`].join(','),
    }
    const children = [startBaton({ verb: 'web', environment }), startBaton({ verb: 'worker', environment })]
    const ended = superviseUntilStopped(children, cli)
    void announce(`http://localhost:${port}`, keys, cli)
    if (!(await ended)) cli.exitCode = 1
  } finally {
    await database.close()
  }
}

async function announce(
  address: string,
  keys: { operator: string; producer: string },
  cli: Cli,
): Promise<void> {
  if (!(await waitUntilReady(address, 30_000))) return
  cli.print('')
  cli.print(`  Baton runs at     ${address}`)
  cli.print(`  dashboard         ${address}/dashboard`)
  cli.print(`  API, to read      ${address}/docs`)
  cli.print(`  operator key      ${keys.operator}`)
  cli.print(`  producer key      ${keys.producer}`)
  cli.print('  stop with Ctrl-C; after a change to jobs/ stop and start it again')
  cli.print('')
}

/** How long processes that have had the same Ctrl-C are left to themselves, ms. */
const courtesyMs = 3_000

/** Passes stops on, and stops the others when one ends by itself. @returns whether all ended as asked */
async function superviseUntilStopped(children: BatonProcess[], cli: Cli): Promise<boolean> {
  let asked = false
  const stopAll = (): void => {
    asked = true
    for (const child of children) child.signal('SIGTERM')
  }
  const stop = (signal: string): void => {
    asked = true
    // A Ctrl-C has reached the children as well, who would say of each further signal that it changes nothing.
    if (signal === 'SIGINT' && process.stdin.isTTY) setTimeout(stopAll, courtesyMs).unref()
    else stopAll()
  }
  handleStopSignals(
    { clock: createSystemClock(), terminal: false },
    { stop, fast: () => undefined, ignored: () => undefined },
  )
  const first = await Promise.race(children.map((child) => child.exited))
  const failed = !asked
  if (failed) {
    cli.complain(
      `baton dev: a process ended by itself (${first.signal ?? `exit code ${first.code}`}); stopping the rest`,
    )
    stopAll()
  }
  await Promise.all(children.map((child) => child.exited))
  return !failed
}

import type { Command } from 'commander'
import { createSystemClock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import { loadConfig } from '../../platform/config/config.ts'
import { endOnUncaught, exitProcess, handleStopSignals } from '../../platform/processes/signals.ts'
import type { Cli } from '../cli.ts'
import type { ComposedWeb } from '../compose/web.ts'

export function registerWeb(program: Command, cli: Cli): void {
  program
    .command('web')
    .description('Takes work in over HTTP on PORT, until it is told to stop.')
    .action(() => runWeb(cli))
}

/** Given to the event loop on top of the deadline, so that the orderly end is the one that ends us, ms. */
const lastMs = 200

async function runWeb(cli: Cli): Promise<void> {
  const config = loadConfig()
  let web: ComposedWeb | undefined
  handleStopSignals(
    { clock: createSystemClock(), terminal: process.stdin.isTTY || process.stdout.isTTY },
    {
      // Nothing is under way before there is a server.
      stop: (signal) => (web ? void stop(web, { signal, limitMs: config.shutdownMs }) : exitProcess(0)),
      fast: () => exitProcess(75),
      ignored: (signal) => cli.complain(`baton: stopping already; ${signal} changes nothing`),
    },
  )
  const { composeWeb } = await import('../compose/web.ts')
  const composed = await composeWeb(config)
  endOnUncaught((error) => composed.log.fatal({ err: error }, 'the web process has a fault and ends'))
  const { url } = await composed.start()
  web = composed
  composed.log.info({ url }, 'web takes requests')
  await warnWithoutKeys(composed)
  // Ends by its signals, with `exitProcess`.
  await new Promise<never>(() => undefined)
}

async function stop(
  web: ComposedWeb,
  { signal, limitMs }: { signal: string; limitMs: number },
): Promise<void> {
  web.log.info({ signal }, 'web stops: no longer ready, requests under way are finished')
  // Whatever hangs, the platform must not have to kill us.
  setTimeout(() => exitProcess(75), limitMs + lastMs).unref()
  const clean = await web.stop()
  web.log.info({ clean }, 'web has stopped')
  exitProcess(clean ? 0 : 75)
}

async function warnWithoutKeys({ hasKeys, log }: ComposedWeb): Promise<void> {
  try {
    if (await hasKeys()) return
    log.warn(
      'Nobody can use this API yet: there is no key. Make one: `baton keys create --role operator --name NAME`',
    )
  } catch (error) {
    log.warn({ reason: messageOf(error) }, 'Whether there are API keys is not known')
  }
}

import type { Command } from 'commander'
import { createSystemClock } from '../../core/clock.ts'
import { loadConfig } from '../../platform/config/config.ts'
import { endOnUncaught, exitProcess, handleSignals } from '../../platform/processes/signals.ts'
import type { WorkerMaster } from '../../runtime/worker/master.ts'
import type { Cli } from '../cli.ts'

export function registerWorker(program: Command, cli: Cli): void {
  program
    .command('worker')
    .description('Runs jobs: a master and WORKER_PROCESSES children, until it is told to stop.')
    .action(() => runWorker(cli))
}

async function runWorker(cli: Cli): Promise<void> {
  const config = loadConfig()
  let master: WorkerMaster | undefined
  handleSignals(
    { clock: createSystemClock(), terminal: process.stdin.isTTY || process.stdout.isTTY },
    {
      // Nothing is under way before there is a master.
      stop: (signal) => (master ? master.stop(signal) : exitProcess(0)),
      fast: () => master?.fast(),
      roll: () => master?.roll(),
      quiet: () => master?.quiet(),
      report: () => void master?.report(),
      ignored: (signal) => cli.complain(`baton: stopping already; ${signal} changes nothing`),
    },
  )
  const { composeMaster } = await import('../compose/master.ts')
  const composed = await composeMaster(config, cli.print)
  endOnUncaught((error) =>
    composed.log.fatal({ err: error }, 'the master has a fault; its children finish and end'),
  )
  master = composed.master
  await master.start()
  // Ends by its signals, with `exitProcess`.
  await new Promise<never>(() => undefined)
}

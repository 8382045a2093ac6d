import type { Command } from 'commander'
import { codeOf, messageOf } from '../../core/errors.ts'
import { loadConfig } from '../../platform/config/config.ts'
import type { Report } from '../../platform/processes/messages.ts'
import {
  endOnUncaught,
  exitProcess,
  onProcessExit,
  openParentPort,
} from '../../platform/processes/signals.ts'
import { runWorkerChild } from '../../runtime/worker/child.ts'

/** What `worker` forks; of no use by hand, so `--help` does not show it. */
export function registerWorkerChild(program: Command): void {
  program
    .command('worker-child', { hidden: true })
    .requiredOption('--runner <id>')
    .requiredOption('--slot <number>')
    .action((options: { runner: string; slot: string }) => runChild(options))
}

async function runChild(identity: { runner: string; slot: string }): Promise<void> {
  const port = openParentPort()
  try {
    const config = loadConfig()
    const { composeWorkerChild } = await import('../compose/worker-child.ts')
    const child = await composeWorkerChild(config, { runner: identity.runner, slot: Number(identity.slot) })
    endOnUncaught((error) => child.log.fatal({ err: error }, 'the child has a fault that nobody caught'))
    const { shutdownMs, watchdogMs } = config
    runWorkerChild({ ...child, port, shutdownMs, watchdogMs, exit: exitProcess, onExit: onProcessExit })
  } catch (error) {
    const report: Report = { type: 'failed', code: codeOf(error) ?? 'FAULT', message: messageOf(error) }
    await port.send(report)
    throw error
  }
  await new Promise<never>(() => undefined)
}

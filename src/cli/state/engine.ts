import { randomUUID } from 'node:crypto'
import { hostname } from 'node:os'
import { createSystemClock } from '../../core/clock.ts'
import type { StateAdministration } from '../../domain/state/administration.ts'
import type { Migration } from '../../domain/state/migration/migration.ts'
import { exitProcess, handleStopSignals } from '../../platform/processes/signals.ts'
import type { Cli } from '../cli.ts'
import { stateConcurrency } from '../compose/state.ts'
import { bytesText, createProgressLine, durationText } from './terminal.ts'

/** A signal that aborts at the first stop signal; a second press of Ctrl-C ends at once. */
export function stopSignal(cli: Cli): AbortSignal {
  const stop = new AbortController()
  handleStopSignals(
    { clock: createSystemClock(), terminal: process.stdin.isTTY || process.stdout.isTTY },
    {
      stop: () => {
        cli.complain('baton: stopping after what is under way')
        stop.abort()
      },
      fast: () => exitProcess(75),
      ignored: () => undefined,
    },
  )
  return stop.signal
}

export interface EngineRun {
  states: StateAdministration
  cli: Cli
  id: string
  until(migration: Migration): boolean
}

const lookEveryMs = 250

/**
 * Works on a migration in this process, with its progress shown, until `until` holds.
 *
 * @returns undefined when it was stopped by a signal: the migration can be gone on with
 */
export async function runEngine({ states, cli, id, until }: EngineRun): Promise<Migration | undefined> {
  const signal = stopSignal(cli)
  const line = createProgressLine(cli)
  const show = async (): Promise<void> => {
    const view = await states.view(id)
    const { counts, rate, etaMs } = view
    const eta = etaMs === undefined ? '' : `, ${durationText(etaMs)} to go`
    const text = `${view.phase}: ${counts.moved} of ${counts.total - counts.removed} devices, ${counts.states} states, ${bytesText(counts.bytes)}, ${rate.statesPerSecond} states/s${eta}`
    line.show(counts.moved, counts.total - counts.removed, text)
  }
  const timer = setInterval(() => void show().catch(() => undefined), lookEveryMs)
  try {
    const engine = `${hostname()} ${process.pid} ${randomUUID().slice(0, 8)}`
    return await states.work(id, { engine, signal, until, concurrency: stateConcurrency })
  } catch (error) {
    if (!signal.aborted) throw error
    line.end()
    cli.complain(`baton: stopped; what was moved stays moved. Go on with: baton state migrate --resume ${id}`)
    cli.exitCode = 1
    return undefined
  } finally {
    clearInterval(timer)
    line.end()
  }
}

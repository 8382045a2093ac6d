import type { Log } from '../log.ts'
import { beatMs } from './messages.ts'
import type { SupervisedChild } from './supervised-child.ts'

export interface WatchOptions {
  children: Iterable<SupervisedChild>
  watchdogMs: number
  log: Log
}

/** What a blocked child has after `interrupt` before it is killed, ms. A loop that comes free can hand its jobs back. */
const lastChanceMs = 5_000

/**
 * Ends children whose event loop is silent. Call `tick` every beat. Ticks are counted, not time: a machine that
 * slept wakes up with a master whose clock has moved and children that had no chance to beat.
 */
export function createWatch(options: WatchOptions): { tick(): void } {
  const { log } = options
  const period = beatMs(options.watchdogMs)
  const silentBeats = Math.ceil(options.watchdogMs / period)
  const lastChanceBeats = Math.ceil(Math.min(lastChanceMs, options.watchdogMs) / period)

  const judge = (child: SupervisedChild): void => {
    const missed = child.missBeat()
    if (missed === silentBeats) {
      const jobs = child.active.map((job) => job.id)
      log.error(
        { slot: child.slot, runner: child.runner, pid: child.pid, silentMs: options.watchdogMs, jobs },
        'event loop of a child is blocked; ending it',
      )
      child.command({
        type: 'interrupt',
        cause: 'watchdog',
        reason: 'its event loop was blocked',
        graceMs: lastChanceMs / 2,
      })
    } else if (missed >= silentBeats + lastChanceBeats) {
      log.error({ slot: child.slot, runner: child.runner, pid: child.pid }, 'killing the blocked child')
      child.kill('watchdog')
    }
  }

  return {
    tick: () => {
      // A booting child has the boot timeout.
      for (const child of options.children) {
        if (child.upForMs() !== undefined && child.state !== 'killed') judge(child)
      }
    },
  }
}

import { expect, it } from 'vitest'
import type { Clock } from '../../../src/core/clock.ts'
import { createLog } from '../../../src/platform/log.ts'
import { createMetrics } from '../../../src/platform/metrics.ts'
import { createKeeper } from '../../../src/runtime/gateway/keeper.ts'
import type { Launcher } from '../../../src/runtime/gateway/launcher.ts'
import type { Roster } from '../../../src/runtime/gateway/roster.ts'
import type { Target } from '../../../src/runtime/gateway/target.ts'
import type { TargetProcess } from '../../../src/runtime/gateway/target-process.ts'
import { eventually } from '../../support/processes.ts'

/** A keeper whose processes live for as long as the test says, on a clock that does not wait. */
function start() {
  let now = 0
  const waits: number[] = []
  const clock: Clock = {
    now: () => now,
    monotonicMs: () => now,
    sleep: async (ms) => void waits.push(ms),
  }
  let end: () => void = () => undefined
  const launch = (): TargetProcess => {
    const { promise, resolve } = Promise.withResolvers<{ how: string }>()
    end = () => resolve({ how: 'SIGKILL' })
    return { startedMs: now, exited: promise, record: { pid: 1 } } as TargetProcess
  }
  const target = {
    id: 't',
    revision: 'one',
    state: 'current',
    process: launch(),
    up: true,
    restarts: 0,
    output: { flush: () => undefined },
  } as unknown as Target
  const removed: string[] = []
  const roster = {
    save: () => undefined,
    noteUp: () => undefined,
    remove: (_target: Target, state: string) => void removed.push(state),
  } as unknown as Roster
  const failures: Error[] = []
  const launcher: Launcher = {
    bringUp: async (each) => {
      const failure = failures.shift()
      if (failure) throw failure
      each.process = launch()
      each.up = true
    },
  }
  const stopping = new AbortController()
  const log = createLog({ level: 'silent', process: 'test' })
  const keeper = createKeeper({
    roster,
    launcher,
    metrics: createMetrics(),
    clock,
    log,
    stopping: stopping.signal,
  })
  keeper.watch(target)
  /** Ends its process after that time, and waits until it has another one. */
  const die = async (afterMs: number): Promise<void> => {
    const before = target.restarts
    now += afterMs
    end()
    await eventually(() => expect(target.restarts).toBe(before + 1))
  }
  return { target, waits, removed, failures, stopping, die, end: () => end() }
}

it('starts the current target again at once, and slower when it dies young again and again', async () => {
  const { die, waits, target } = start()
  for (let death = 0; death < 5; death++) await die(100)
  expect(waits.slice(0, 3)).toEqual([0, 0, 0])
  expect(waits[3]).toBeGreaterThanOrEqual(500)
  expect(waits[4]).toBeGreaterThanOrEqual(1_000)
  // It has recovered.
  await die(5_000)
  expect(waits[5]).toBe(0)
  expect(target.up).toBe(true)
})

it('goes on trying when it does not come up', async () => {
  const { die, failures, waits } = start()
  failures.push(new Error('no'), new Error('still not'))
  await die(10_000)
  expect(waits).toHaveLength(3)
  expect(waits[1]).toBeGreaterThanOrEqual(500)
  expect(waits[2]).toBeGreaterThanOrEqual(1_000)
})

it('starts no detached target again, and nothing in a stop', async () => {
  const detached = start()
  detached.target.state = 'detached'
  detached.end()
  await eventually(() => expect(detached.removed).toEqual(['stopped']))
  expect(detached.waits).toEqual([])

  const stopped = start()
  stopped.stopping.abort()
  stopped.end()
  await eventually(() => expect(stopped.target.process).toBeUndefined())
  expect(stopped.waits).toEqual([])
})

import { pino } from 'pino'
import { expect, onTestFinished, test } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import type { Service } from '../../../src/core/lifecycle.ts'
import { createFork } from '../../../src/platform/processes/child.ts'
import type { NodeHeartbeat } from '../../../src/platform/processes/node-heartbeat.ts'
import { createSupervisor } from '../../../src/platform/processes/supervisor.ts'
import { createStop } from '../../../src/runtime/worker/stop.ts'
import { eventually, projectRoot } from '../../support/processes.ts'

interface Setup {
  behaviour: string
  shutdownMs?: number
  intake?: Service[]
  owed?: string[]
  /** What the stores do when they are asked for something. */
  stores?: () => Promise<void>
}

/** A stop of real children, with stores that answer as the test says. */
async function setUp(setup: Setup) {
  const clock = createSystemClock()
  const log = pino({ level: 'silent' })
  const { promise: exited, resolve: exit } = Promise.withResolvers<{ code: number; atMs: number }>()
  const stores = setup.stores ?? (async () => undefined)
  let up = 0
  const supervisor = createSupervisor({
    slots: 1,
    fork: createFork(`${projectRoot}/test/fixtures/worker/child.ts`, [setup.behaviour]),
    bootTimeoutMs: 10_000,
    watchdogMs: 30_000,
    rollLimits: { patienceMs: 1, deadlineMs: 1, nextSlotMs: 1, graceMs: 1 },
    record: async () => undefined,
    onUp: () => void up++,
    onDeath: stores,
    onHopeless: () => undefined,
    clock,
    log,
  })
  const heartbeat: NodeHeartbeat = {
    start: async () => undefined,
    record: async () => undefined,
    stop: stores,
  }
  const hooks = { run: async () => setup.owed ?? [], settle: async () => undefined }
  const stop = createStop({
    supervisor,
    heartbeat,
    intake: setup.intake ?? [],
    hooks,
    shutdownMs: setup.shutdownMs ?? 3_000,
    clock,
    log,
    close: stores,
    exit: (code) => exit({ code, atMs: clock.monotonicMs() }),
  })
  onTestFinished(() => void supervisor.kill())
  supervisor.start()
  await eventually(() => expect(up).toBe(1), { timeoutMs: 30_000 })
  /** Begins the stop. @returns the exit code, and when it came, ms */
  const end = async () => {
    const began = clock.monotonicMs()
    stop.begin('SIGTERM')
    const { code, atMs } = await exited
    return { code, tookMs: atMs - began }
  }
  return { stop, end }
}

const never = () => new Promise<void>(() => undefined)

test('a stop with nothing to wait for is over at once, with 0', async () => {
  const { end } = await setUp({ behaviour: 'steady' })
  const { code, tookMs } = await end()
  expect(code).toBe(0)
  expect(tookMs).toBeLessThan(1_800)
})

test('a job that ends before the interruption is waited for', async () => {
  const { end } = await setUp({ behaviour: 'busy:900' })
  const { code, tookMs } = await end()
  expect(code).toBe(0)
  expect(tookMs).toBeGreaterThan(500)
  expect(tookMs).toBeLessThan(1_900)
})

test('a job without end is handed back when its phase comes, and that is clean', async () => {
  const { end } = await setUp({ behaviour: 'busy:600000', shutdownMs: 5_000 })
  const { code, tookMs } = await end()
  expect(code).toBe(0)
  // 5 s less 9/25 of it.
  expect(tookMs).toBeGreaterThan(3_100)
  expect(tookMs).toBeLessThan(4_900)
})

test('a child that cannot hand back makes the stop a forced one', async () => {
  const { end } = await setUp({ behaviour: 'stubborn' })
  const { code, tookMs } = await end()
  expect(code).toBe(75)
  expect(tookMs).toBeLessThan(3_700)
})

test('fast interrupts at once', async () => {
  const { stop, end } = await setUp({ behaviour: 'busy:600000', shutdownMs: 25_000 })
  const ended = end()
  stop.fast()
  const { code, tookMs } = await ended
  expect(code).toBe(0)
  expect(tookMs).toBeLessThan(3_700)
})

test('a hook that became a debt makes the stop a forced one', async () => {
  const { end } = await setUp({ behaviour: 'steady', owed: ['flush'] })
  expect((await end()).code).toBe(75)
})

test('stores and intake that never answer do not keep the process', async () => {
  const intake = [{ start: async () => undefined, stop: never }]
  const { end } = await setUp({ behaviour: 'stubborn', stores: never, intake })
  const { code, tookMs } = await end()
  expect(code).toBe(75)
  expect(tookMs).toBeLessThan(3_700)
})

import { type Logger, pino } from 'pino'
import { expect, onTestFinished, test } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import type { BatonError } from '../../../src/core/errors.ts'
import { withLimit } from '../../../src/core/lifecycle.ts'
import { createFork } from '../../../src/platform/processes/child.ts'
import type { RollLimits } from '../../../src/platform/processes/roll.ts'
import { createSupervisor, type Loss, lossOf } from '../../../src/platform/processes/supervisor.ts'
import { eventually, projectRoot } from '../../support/processes.ts'

interface Setup {
  slots?: number
  behaviour?: string
  bootTimeoutMs?: number
  watchdogMs?: number
  nextSlotMs?: number
  rollLimits?: RollLimits
  record?(runner: string): Promise<void>
}

/** A supervisor of fixture children, and everything that it told. What is left of it is killed at the test's end. */
function setUp(setup: Setup = {}) {
  const events: string[] = []
  const losses: Loss[] = []
  const lines: Record<string, unknown>[] = []
  const hopeless: BatonError[] = []
  const log: Logger = pino({ level: 'info' }, { write: (line: string) => void lines.push(JSON.parse(line)) })
  const child = { behaviour: setup.behaviour ?? 'steady' }
  const supervisor = createSupervisor({
    slots: setup.slots ?? 1,
    fork: (identity) =>
      createFork(`${projectRoot}/test/fixtures/worker/child.ts`, [child.behaviour])(identity),
    bootTimeoutMs: setup.bootTimeoutMs ?? 10_000,
    watchdogMs: setup.watchdogMs ?? 30_000,
    rollLimits: setup.rollLimits ?? {
      patienceMs: 5_000,
      deadlineMs: 10_000,
      nextSlotMs: setup.nextSlotMs ?? 5_000,
      graceMs: 5_000,
    },
    record: async ({ runner }) => {
      events.push(`record ${runner}`)
      await setup.record?.(runner)
    },
    onUp: ({ runner }) => void events.push(`up ${runner}`),
    onDeath: async (child, exit) => {
      losses.push(lossOf(child, exit))
      events.push(`death ${child.runner} ${exit.signal ?? exit.code}`)
    },
    onHopeless: (error) => void hopeless.push(error),
    clock: createSystemClock(),
    log,
  })
  onTestFinished(async () => {
    supervisor.drain()
    supervisor.kill()
    await supervisor.gone()
  })
  const ups = () => events.filter((event) => event.startsWith('up ')).map((event) => event.slice(3))
  const untilUp = (count: number) =>
    eventually(() => expect(ups()).toHaveLength(count), { timeoutMs: 30_000 })
  return { supervisor, events, losses, lines, hopeless, child, ups, untilUp }
}

test('a runner is recorded before its child is told to start', async () => {
  const recorded = Promise.withResolvers<void>()
  const { supervisor, events, untilUp } = setUp({ slots: 2, record: () => recorded.promise })
  supervisor.start()
  await eventually(() => expect(events).toHaveLength(2), { timeoutMs: 30_000 })
  expect(supervisor.children().map((child) => child.state)).toEqual(['ready', 'ready'])
  recorded.resolve()
  await untilUp(2)
  expect(new Set(supervisor.children().map((child) => child.runner)).size).toBe(2)
})

test('a killed child is handed over and replaced by one with a new runner', async () => {
  const { supervisor, events, untilUp, ups } = setUp()
  supervisor.start()
  await untilUp(1)
  const [first] = supervisor.children()
  process.kill(first?.pid ?? 0, 'SIGKILL')
  await untilUp(2)
  expect(events).toContain(`death ${first?.runner} SIGKILL`)
  expect(ups()[1]).not.toBe(first?.runner)
})

test('a child that is told of signals by the platform goes on', async () => {
  const { supervisor, untilUp, events } = setUp()
  supervisor.start()
  await untilUp(1)
  const [child] = supervisor.children()
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGHUP', 'SIGUSR1', 'SIGUSR2', 'SIGTSTP'] as const) {
    process.kill(child?.pid ?? 0, signal)
  }
  supervisor.drain()
  await supervisor.gone()
  expect(events.at(-1)).toBe(`death ${child?.runner} 0`)
})

test('no child ever becomes ready: the supervisor gives up after three tries', async () => {
  const { supervisor, hopeless, events } = setUp({ behaviour: 'throws' })
  supervisor.start()
  await eventually(() => expect(hopeless.map((error) => error.code)).toEqual(['WORKER_NEVER_READY']), {
    timeoutMs: 30_000,
  })
  expect(events.filter((event) => event.endsWith(' 3'))).toHaveLength(3)
})

test('a child that hangs in its boot is killed at the boot timeout, and nothing is left to hope for', async () => {
  const { supervisor, hopeless } = setUp({ behaviour: 'mute', bootTimeoutMs: 500 })
  supervisor.start()
  await eventually(() => expect(hopeless[0]?.message).toContain('not within 500 ms'), { timeoutMs: 30_000 })
})

test('a slot whose children die young slows down, visibly, and is not given up', async () => {
  const { supervisor, hopeless, untilUp } = setUp({ behaviour: 'young:30' })
  supervisor.start()
  await untilUp(4)
  await eventually(() => expect(supervisor.waiting()[0]).toMatchObject({ slot: 1, failures: 4 }))
  expect(supervisor.waiting()[0]?.forkInMs).toBeGreaterThan(0)
  expect(hopeless).toEqual([])
})

test('a roll starts the new child before the old one is told to leave, slot after slot', async () => {
  const { supervisor, events, untilUp, ups } = setUp({ slots: 2 })
  supervisor.start()
  await untilUp(2)
  const old = supervisor.children().map((child) => child.runner)
  await supervisor.roll()
  await untilUp(4)
  const order = events.filter((event) => !event.startsWith('record')).slice(2)
  const [, , third, fourth] = ups()
  expect(order).toEqual([`up ${third}`, `death ${old[0]} 0`, `up ${fourth}`, `death ${old[1]} 0`])
})

test('the old child of a roll finishes its job', async () => {
  const { supervisor, events, untilUp } = setUp({ behaviour: 'busy:1500' })
  supervisor.start()
  await untilUp(1)
  const [old] = supervisor.children()
  const began = performance.now()
  await supervisor.roll()
  expect(performance.now() - began).toBeGreaterThan(1_000)
  expect(events).toContain(`death ${old?.runner} 0`)
})

test('however many rolls are asked for during a roll, one more follows', async () => {
  const { supervisor, untilUp } = setUp()
  supervisor.start()
  await untilUp(1)
  const first = supervisor.roll()
  await Promise.all([first, supervisor.roll(), supervisor.roll(), supervisor.roll()])
  await untilUp(3)
  expect(supervisor.children()).toHaveLength(1)
})

test('a roll to children that do not come up changes nothing', async () => {
  const { supervisor, child, untilUp, lines } = setUp({ slots: 2 })
  supervisor.start()
  await untilUp(2)
  const before = supervisor.children()
  child.behaviour = 'throws'
  await supervisor.roll()
  expect(supervisor.children()).toEqual(before)
  expect(before.map((each) => each.state)).toEqual(['up', 'up'])
  expect(lines.some((line) => String(line['msg']).includes('the roll ends'))).toBe(true)
})

test('an old child that dies during the boot of the new one leaves its place to it', async () => {
  const { supervisor, untilUp, ups } = setUp()
  supervisor.start()
  await untilUp(1)
  const [old] = supervisor.children()
  const rolled = supervisor.roll()
  process.kill(old?.pid ?? 0, 'SIGKILL')
  await rolled
  await untilUp(2)
  expect(supervisor.children().map((each) => each.runner)).toEqual([ups()[1]])
})

test('a stop during a roll ends old and new children, and forks no more', async () => {
  const { supervisor, untilUp } = setUp({ slots: 2 })
  supervisor.start()
  await untilUp(2)
  const rolled = supervisor.roll()
  supervisor.drain()
  await supervisor.gone()
  await rolled
  expect(supervisor.children()).toEqual([])
  expect(supervisor.unclean).toBe(0)
})

test('a stop while no child lives has nothing to wait for', async () => {
  const { supervisor } = setUp()
  const gone = supervisor.gone()
  supervisor.drain()
  expect(await withLimit(gone, 1_000)).toBeUndefined()
})

test('a child that is drained finishes its job and ends with 0', async () => {
  const { supervisor, events, untilUp, ups } = setUp({ behaviour: 'busy:800' })
  supervisor.start()
  await untilUp(1)
  supervisor.drain()
  await supervisor.gone()
  expect(events.at(-1)).toBe(`death ${ups()[0]} 0`)
  expect(supervisor.unclean).toBe(0)
})

test('a child that ends with 0 during a drain, but not by itself, is a death', async () => {
  const { supervisor, losses, untilUp } = setUp({ behaviour: 'leaves:300' })
  supervisor.start()
  await untilUp(1)
  supervisor.drain()
  await supervisor.gone()
  expect(losses).toEqual(['crash'])
  expect(supervisor.unclean).toBe(1)
})

test.each([
  ['that was drained', 'busy:200', [], 'none'],
  ['that could not hand back before its deadline', 'stubborn', ['interrupt'], 'interruption'],
  ['that was killed at the deadline of the stop', 'blocked', ['kill'], 'interruption'],
] as const)(
  'a child %s in a stop has lost its jobs by no fault of theirs',
  async (_name, behaviour, steps, loss) => {
    const { supervisor, losses, untilUp } = setUp({ behaviour })
    supervisor.start()
    await untilUp(1)
    supervisor.drain()
    for (const step of steps) {
      if (step === 'kill') supervisor.kill()
      else supervisor.interrupt('test', 300)
    }
    await supervisor.gone()
    expect(losses).toEqual([loss])
  },
)

test('an old child that is blocked at the deadline of a roll is killed, and that is no crash', async () => {
  const { supervisor, child, losses, untilUp } = setUp({
    behaviour: 'blocked',
    rollLimits: { patienceMs: 100, deadlineMs: 200, nextSlotMs: 5_000, graceMs: 200 },
  })
  supervisor.start()
  await untilUp(1)
  child.behaviour = 'steady'
  await supervisor.roll()
  expect(losses).toEqual(['interruption'])
})

test('a child that can not hand back in time ends itself and counts as unclean', async () => {
  const { supervisor, events, untilUp } = setUp({ behaviour: 'stubborn' })
  supervisor.start()
  await untilUp(1)
  supervisor.drain()
  supervisor.interrupt('test', 500)
  await supervisor.gone()
  expect(events.at(-1)).toMatch(/ 75$/)
  expect(supervisor.unclean).toBe(1)
})

test('a child whose event loop is blocked is ended and replaced', async () => {
  const { supervisor, child, events, losses, lines, untilUp } = setUp({
    behaviour: 'blocked',
    watchdogMs: 1_000,
  })
  supervisor.start()
  await untilUp(1)
  child.behaviour = 'steady'
  await untilUp(2)
  expect(events.some((event) => event.startsWith('death') && event.endsWith('SIGKILL'))).toBe(true)
  expect(losses).toEqual(['crash'])
  expect(lines.some((line) => String(line['msg']).includes('is blocked'))).toBe(true)
})

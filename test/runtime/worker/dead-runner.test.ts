import { pino } from 'pino'
import { expect, test } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createDeadRunners } from '../../../src/runtime/worker/dead-runner.ts'
import { eventually } from '../../support/processes.ts'

function setUp(releaseRunner: () => Promise<string[]>, handBack?: () => Promise<string[]>) {
  const calls: string[] = []
  const deadRunners = createDeadRunners({
    ledger: {
      releaseRunner: async (runner) => {
        const ids = await releaseRunner()
        calls.push(`rows of ${runner}`)
        return ids
      },
    },
    backend: {
      handBack: async (queue, runner) => {
        calls.push(`entries of ${runner} in ${queue}`)
        return handBack?.() ?? []
      },
    },
    clock: createSystemClock(),
    log: pino({ level: 'silent' }),
  })
  return { calls, deadRunners }
}

test('rows are released before the entries of every queue, and the entries once more a moment later', async () => {
  const { calls, deadRunners } = setUp(async () => {
    // The commit takes a moment, as it does.
    await new Promise((resolve) => setTimeout(resolve, 50))
    return ['job']
  })
  await deadRunners.release('r', ['a', 'b'], 'crash')
  const entries = ['entries of r in a', 'entries of r in b']
  expect(calls).toEqual(['rows of r', ...entries])
  await eventually(() => expect(calls).toEqual(['rows of r', ...entries, ...entries]))
})

test('entries do not wait for a Postgres that does not answer', async () => {
  const { promise: back, resolve } = Promise.withResolvers<string[]>()
  const { calls, deadRunners } = setUp(() => back)
  const released = deadRunners.release('r', ['a'], 'crash')
  await eventually(() => expect(calls).toContain('entries of r in a'), { timeoutMs: 1_000 })
  resolve([])
  await released
})

test('neither store can make it fail', async () => {
  const fail = () => Promise.reject(new Error('away'))
  const { calls, deadRunners } = setUp(fail, fail)
  await deadRunners.release('r', ['a', 'b'], 'interruption')
  expect(calls).toHaveLength(2)
})

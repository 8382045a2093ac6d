import { pino } from 'pino'
import { expect, test } from 'vitest'
import { createTroubleLog } from '../../src/platform/trouble-log.ts'

test('a trouble that repeats itself is told once in a while, with how often it came', async () => {
  const lines: Record<string, unknown>[] = []
  const log = pino({ level: 'warn' }, { write: (line: string) => void lines.push(JSON.parse(line)) })
  let nowMs = 0
  const clock = { now: () => nowMs, monotonicMs: () => nowMs, sleep: async () => undefined }
  const troubles = createTroubleLog(log, clock, 1_000)
  for (nowMs = 0; nowMs <= 1_500; nowMs += 100) troubles.tell('away', new Error(`at ${nowMs}`))
  troubles.tell('something else', 'x')
  expect(lines.map(({ msg, reason, timesBefore }) => ({ msg, reason, timesBefore }))).toEqual([
    { msg: 'away', reason: 'at 0', timesBefore: undefined },
    { msg: 'away', reason: 'at 1000', timesBefore: 9 },
    { msg: 'something else', reason: 'x', timesBefore: undefined },
  ])
})

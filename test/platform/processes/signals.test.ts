import { expect, test } from 'vitest'
import { createStopSignals } from '../../../src/platform/processes/signals.ts'

function setUp(terminal: boolean) {
  const heard: string[] = []
  let now = 1_000
  const onSignal = createStopSignals(
    { clock: { now: () => now, monotonicMs: () => now, sleep: async () => undefined }, terminal },
    {
      stop: (signal) => void heard.push(`stop ${signal}`),
      fast: () => void heard.push('fast'),
      ignored: (signal) => void heard.push(`ignored ${signal}`),
    },
  )
  const at = (ms: number, signal: string) => {
    now = 1_000 + ms
    onSignal(signal)
  }
  return { heard, at }
}

test('the first signal stops and every later one changes nothing', () => {
  const { heard, at } = setUp(false)
  for (const [index, signal] of ['SIGTERM', 'SIGTERM', 'SIGQUIT', 'SIGINT', 'SIGINT'].entries()) {
    at(index * 1_000, signal)
  }
  expect(heard).toEqual([
    'stop SIGTERM',
    'ignored SIGTERM',
    'ignored SIGQUIT',
    'ignored SIGINT',
    'ignored SIGINT',
  ])
})

test('a second INT from a terminal is fast, once', () => {
  const { heard, at } = setUp(true)
  at(0, 'SIGINT')
  at(2_000, 'SIGINT')
  at(3_000, 'SIGINT')
  expect(heard).toEqual(['stop SIGINT', 'fast', 'ignored SIGINT'])
})

test('one key press that shell and parent both pass on is one signal', () => {
  const { heard, at } = setUp(true)
  at(0, 'SIGINT')
  at(20, 'SIGINT')
  expect(heard).toEqual(['stop SIGINT', 'ignored SIGINT'])
})

test('a second INT after five seconds is not fast', () => {
  const { heard, at } = setUp(true)
  at(0, 'SIGINT')
  at(5_001, 'SIGINT')
  expect(heard.at(-1)).toBe('ignored SIGINT')
})

test('two TERM from a terminal are not fast', () => {
  const { heard, at } = setUp(true)
  at(0, 'SIGTERM')
  at(1_000, 'SIGTERM')
  expect(heard.at(-1)).toBe('ignored SIGTERM')
})

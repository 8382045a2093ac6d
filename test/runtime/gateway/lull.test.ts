import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { createLull } from '../../../src/runtime/gateway/lull.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

function start() {
  const ends: boolean[] = []
  const state = { whole: true }
  const lull = createLull({ isWhole: () => state.whole, onLull: (whole) => ends.push(whole) })
  return { ends, state, lull }
}

it('comes after a short silence, counted from the last that was said', () => {
  const { ends, lull } = start()
  lull.note()
  vi.advanceTimersByTime(10_000)
  expect(ends).toEqual([])
  lull.seek()
  for (let said = 0; said < 5; said++) {
    vi.advanceTimersByTime(40)
    lull.note()
  }
  expect(ends).toEqual([])
  vi.advanceTimersByTime(50)
  expect(ends).toEqual([true])
  vi.advanceTimersByTime(10_000)
  expect(ends).toEqual([true])
})

it('is not in the middle of a message', () => {
  const { ends, lull, state } = start()
  state.whole = false
  lull.seek()
  vi.advanceTimersByTime(900)
  expect(ends).toEqual([])
  state.whole = true
  lull.note()
  vi.advanceTimersByTime(50)
  expect(ends).toEqual([true])
})

it('is the end of the next message when there is no silence, and comes in the middle of one when that does not end', () => {
  const chatty = start()
  chatty.lull.seek()
  for (let said = 0; said < 99; said++) {
    chatty.state.whole = false
    vi.advanceTimersByTime(20)
    chatty.lull.note()
    chatty.state.whole = true
    vi.advanceTimersByTime(5)
    chatty.lull.note()
  }
  expect(chatty.ends).toEqual([])
  vi.advanceTimersByTime(25)
  expect(chatty.ends).toEqual([true])

  const stuck = start()
  stuck.state.whole = false
  stuck.lull.seek()
  vi.advanceTimersByTime(4_999)
  expect(stuck.ends).toEqual([])
  vi.advanceTimersByTime(1)
  expect(stuck.ends).toEqual([false])
})

it('does not come when the stream has ended', () => {
  const { ends, lull } = start()
  lull.seek()
  lull.cancel()
  lull.note()
  vi.advanceTimersByTime(10_000)
  expect(ends).toEqual([])
})

import { expect, it } from 'vitest'
import { createAnswerRoom } from '../../../src/domain/push/answer-room.ts'

const mib = 1_048_576

it('lets in what fits, and the next in turn when one leaves', async () => {
  const room = createAnswerRoom(4 * mib)
  const first = await room.take(3 * mib, 0)
  const order: string[] = []
  const large = room.take(4 * mib, 10_000).then((leave) => (order.push('large'), leave))
  const smaller = room.take(mib, 10_000).then((leave) => (order.push('smaller'), leave))
  first?.()
  // Twice is once: else the room would grow.
  first?.()
  const leaveLarge = await large
  expect(order).toEqual(['large'])
  leaveLarge?.()
  expect(await smaller).toBeDefined()
  expect(order).toEqual(['large', 'smaller'])
})

it('says so when there is no room in time, and holds up nobody behind it', async () => {
  const room = createAnswerRoom(4 * mib)
  const first = await room.take(2 * mib, 0)
  const large = room.take(3 * mib, 30)
  const behind = room.take(2 * mib, 10_000)
  expect(await large).toBeUndefined()
  expect(await behind).toBeDefined()
  first?.()
})

it('lets in one that is larger than all room, alone; and small ones always', async () => {
  const room = createAnswerRoom(mib)
  const huge = await room.take(4 * mib, 0)
  expect(huge).toBeDefined()
  expect(await room.take(2 * 65_536, 1)).toBeUndefined()
  expect(await room.take(1_000, 0)).toBeDefined()
  huge?.()
  expect(await room.take(2 * 65_536, 1)).toBeDefined()
})

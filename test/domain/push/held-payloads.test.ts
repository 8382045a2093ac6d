import { expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createHeldPayloads } from '../../../src/domain/push/held-payloads.ts'
import { eventually } from '../../support/processes.ts'

it('asks for a few of many at a time while none is there, and for all once they are', async () => {
  let away = true
  const asked: string[] = []
  const rounds: number[] = []
  const clock = {
    ...createSystemClock(),
    sleep: async () => {
      rounds.push(asked.length)
      await new Promise((resolve) => setTimeout(resolve, 5))
    },
  }
  const held = createHeldPayloads({
    isReadable: async (payload) => {
      asked.push(payload)
      return !away
    },
    clock,
  })
  const told: string[] = []
  const names = Array.from({ length: 50 }, (_none, index) => `payload-${index}`)
  for (const name of names) held.hold(name, () => told.push(name))
  const takeBack = held.hold('unwanted', () => told.push('unwanted'))
  takeBack()
  await eventually(() => expect(rounds.length).toBeGreaterThan(15))
  // In turn: one that lies where nothing comes back must not stand before the others.
  expect(new Set(asked).size).toBe(50)
  expect(asked.length / rounds.length).toBeLessThanOrEqual(4)
  expect(told).toEqual([])
  away = false
  await eventually(() => expect([...told].sort()).toEqual([...names].sort()))
  const roundsThen = rounds.length
  await new Promise((resolve) => setTimeout(resolve, 50))
  // Nothing is held any more, so nothing is looked for.
  expect(rounds.length).toBe(roundsThen)
})

it('does not ask at once for what is held again', async () => {
  let asked = 0
  let rounds = 0
  const clock = {
    ...createSystemClock(),
    sleep: async () => {
      rounds += 1
      await new Promise((resolve) => setTimeout(resolve, 5))
    },
  }
  const held = createHeldPayloads({
    isReadable: async () => {
      asked += 1
      return true
    },
    clock,
  })
  const again = (): void => void held.hold('there and away', again)
  again()
  await eventually(() => expect(rounds).toBeGreaterThan(10))
  expect(asked).toBeLessThanOrEqual(rounds)
})

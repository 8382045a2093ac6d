import { describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createPlaces, type Places } from '../../../src/platform/queues/places.ts'

const never = new AbortController().signal
const create = (concurrency: number): Places => createPlaces(concurrency, createSystemClock(), never)
/** Handlers that took so long, one after the other. */
const learn = async (places: Places, tookMs: number, times = 60): Promise<void> => {
  for (let run = 0; run < times; run++) {
    await places.enter()
    places.leave(tookMs)
  }
}

describe('the places of a queue', () => {
  it('admits as many as there are, and the others in their order as places get free', async () => {
    const places = create(2)
    const order: string[] = []
    const enter = (name: string): Promise<unknown> => places.enter().then((has) => has && order.push(name))
    await Promise.all([enter('a'), enter('b')])
    const others = [enter('c'), enter('d')]
    await Promise.resolve()
    expect(order).toEqual(['a', 'b'])
    places.leave(1)
    await others[0]
    expect(order).toEqual(['a', 'b', 'c'])
    places.leave(1)
    await others[1]
    expect(order).toEqual(['a', 'b', 'c', 'd'])
  })

  it('calls nobody ahead before it knows how long handlers take, nor when they are slow', async () => {
    const places = create(10)
    expect(places.ahead()).toBe(0)
    await learn(places, 500)
    expect(places.ahead()).toBe(0)
  })

  it('calls some ahead while handlers are quick, and stops soon when they are not any more', async () => {
    const places = create(10)
    await learn(places, 0.05)
    expect(places.ahead()).toBe(30)
    await learn(places, 1_000, 1)
    expect(places.ahead()).toBeLessThan(3)
  })

  it('calls nobody ahead for a single place, which may be meant as an order', async () => {
    const places = create(1)
    await learn(places, 0.05)
    expect(places.ahead()).toBe(0)
  })

  it('sends away whoever waits in vain, and keeps the place for the next', async () => {
    const places = create(1)
    await places.enter()
    const start = performance.now()
    expect(await places.enter()).toBe(false)
    expect(performance.now() - start).toBeGreaterThan(50)
    expect(performance.now() - start).toBeLessThan(5_000)
    places.leave(500)
    expect(await places.enter()).toBe(true)
  })

  it('sends away all that wait at a drain', async () => {
    const stop = new AbortController()
    const places = createPlaces(1, createSystemClock(), stop.signal)
    await places.enter()
    const waiting = [places.enter(), places.enter()]
    stop.abort()
    expect(await Promise.all(waiting)).toEqual([false, false])
    expect(await places.enter()).toBe(false)
    expect(places.ahead()).toBe(0)
  })
})

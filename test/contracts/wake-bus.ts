import { randomUUID } from 'node:crypto'
import { afterEach, describe, expect, it } from 'vitest'
import type { WakeBus } from '../../src/platform/wake-bus.ts'
import { eventually } from '../support/processes.ts'

export interface WakeBusUnderTest {
  /** Another process's bus to the same cluster. */
  open(): Promise<WakeBus> | WakeBus
  /** Takes the server away and gives it back. */
  interrupt(): Promise<void>
}

/** What every wake bus owes to the code above it. */
export function exerciseWakeBus(name: string, create: () => Promise<WakeBusUnderTest>): void {
  describe(`a wake bus on ${name}`, () => {
    const buses: WakeBus[] = []
    afterEach(async () => {
      for (const bus of buses.splice(0)) await bus.close()
    })
    const open = async (under: WakeBusUnderTest): Promise<WakeBus> => {
      const bus = await under.open()
      buses.push(bus)
      return bus
    }
    const listen = async (bus: WakeBus, channel: string): Promise<string[]> => {
      const texts: string[] = []
      await bus.subscribe(channel, (text) => void texts.push(text))
      return texts
    }

    it('wakes all who listen on the channel, itself included, and nobody else', async () => {
      const under = await create()
      const [one, two] = [await open(under), await open(under)]
      const channel = `device:${randomUUID()}`
      const heard = [await listen(one, channel), await listen(two, channel), await listen(two, channel)]
      const other = await listen(two, `${channel}2`)
      await one.publish(channel, 'look\nhere é')
      for (const texts of heard) await eventually(() => expect(texts).toEqual(['look\nhere é']))
      await two.publish(`${channel}2`, 'x')
      await eventually(() => expect(other).toEqual(['x']))
      expect(heard[0]).toHaveLength(1)
    })

    it('carries a wake that is published as soon as the subscription stands', async () => {
      const under = await create()
      const [one, two] = [await open(under), await open(under)]
      const texts = await listen(one, 'c')
      await two.publish('c', 'at once')
      await eventually(() => expect(texts).toEqual(['at once']))
    })

    it('is silent after the last unsubscribe, and hears again after another subscribe', async () => {
      const under = await create()
      const bus = await open(under)
      const first: string[] = []
      const marks = await listen(bus, 'mark')
      const subscription = await bus.subscribe('c', (text) => void first.push(text))
      await subscription.unsubscribe()
      await subscription.unsubscribe()
      await bus.publish('c', 'unheard')
      await bus.publish('mark', '1')
      await eventually(() => expect(marks).toEqual(['1']))
      expect(first).toEqual([])
      const [gone, again] = [await bus.subscribe('c', () => undefined), await listen(bus, 'c')]
      await gone.unsubscribe()
      await bus.publish('c', 'heard')
      await eventually(() => expect(again).toEqual(['heard']))
    })

    it('does not let one listener spoil the others', async () => {
      const under = await create()
      const bus = await open(under)
      await bus.subscribe('c', () => {
        throw new Error('a fault')
      })
      const texts = await listen(bus, 'c')
      await bus.publish('c', 'x')
      await eventually(() => expect(texts).toEqual(['x']))
    })

    it('takes texts of 7,000 bytes and refuses longer ones', async () => {
      const under = await create()
      const bus = await open(under)
      const texts = await listen(bus, 'c')
      await bus.publish('c', 'é'.repeat(3_500))
      await eventually(() => expect(texts[0]).toHaveLength(3_500))
      await expect(bus.publish('c', 'x'.repeat(7_001))).rejects.toThrow('7001 bytes')
    })

    it('carries thousands of wakes at once', async () => {
      const under = await create()
      const [one, two] = [await open(under), await open(under)]
      const texts = await listen(two, 'c')
      await Promise.all(Array.from({ length: 2_000 }, (_, index) => one.publish('c', String(index))))
      await eventually(() => expect(new Set(texts).size).toBe(2_000))
    })

    it('listens again by itself after the server was away, and tells so', async () => {
      const under = await create()
      const bus = await open(under)
      const texts = await listen(bus, 'c')
      let restored = 0
      bus.onRestored(() => void restored++)
      const before = performance.now()
      await under.interrupt()
      await eventually(() => expect(restored).toBeGreaterThan(0), { timeoutMs: 30_000 })
      await eventually(async () => {
        await bus.publish('c', 'again')
        expect(texts).toContain('again')
      })
      expect(performance.now() - before).toBeLessThan(12_000)
    })

    it('fails soon when it publishes to nobody', async () => {
      const under = await create()
      const bus = await open(under)
      await listen(bus, 'c')
      await bus.close()
      await expect(bus.publish('c', 'x')).rejects.toBeInstanceOf(Error)
    })
  })
}

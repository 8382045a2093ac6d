import { randomUUID } from 'node:crypto'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../src/core/clock.ts'
import { newId } from '../../src/core/ids.ts'
import type {
  ConsumeOptions,
  Consumer,
  Delivery,
  Disposition,
  Entry,
  QueueBackend,
} from '../../src/platform/queues/backend.ts'
import { eventually } from '../support/processes.ts'

const clock = createSystemClock()
const finished: Disposition = { kind: 'finished' }

export const entry = (more: Partial<Entry> = {}): Entry => ({
  id: newId(clock.now()),
  name: 'report',
  delayMs: 0,
  priority: 0,
  ...more,
})
export const volatile = (payload: unknown, attempts = 3): NonNullable<Entry['volatile']> => ({
  payload,
  attempts,
  backoff: { baseMs: 10, maxMs: 40 },
})

/** What every queue engine owes to the code above it. */
export function exerciseQueueBackend(name: string, create: () => Promise<QueueBackend>): void {
  describe(`a queue backend on ${name}`, () => {
    let backend: QueueBackend
    let queue: string
    const consumers: Consumer[] = []

    beforeAll(async () => {
      backend = await create()
      await backend.ping(5_000)
    })
    afterAll(() => backend.close())
    afterEach(async () => {
      await Promise.all(consumers.splice(0).map((each) => each.close(2_000)))
    })

    /** Starts a consumer of the test's own queue. */
    const consume = async (
      process: (delivery: Delivery) => Promise<Disposition> | Disposition,
      more: Partial<ConsumeOptions> = {},
    ): Promise<Consumer> => {
      const consumer = backend.consume({
        queue,
        runner: randomUUID(),
        concurrency: 10,
        process: async (delivery) => process(delivery),
        onLost: () => undefined,
        onError: () => undefined,
        ...more,
      })
      consumers.push(consumer)
      await consumer.start()
      return consumer
    }
    const fresh = (): void => {
      queue = `q${randomUUID().slice(0, 8)}`
    }
    const drained = (): Promise<void> =>
      eventually(async () => {
        expect(await backend.counts(queue)).toMatchObject({ waiting: 0, delayed: 0, active: 0 })
      })

    it('delivers an entry that carries nothing but its id and name', async () => {
      fresh()
      const added = entry()
      const seen: Delivery[] = []
      await consume((delivery) => (seen.push(delivery), finished))
      await backend.add(queue, [added])
      await eventually(() => expect(seen).toHaveLength(1))
      expect(seen[0]).toMatchObject({ id: added.id, name: 'report', queue })
      expect(seen[0]?.volatile).toBeUndefined()
      await drained()
    })

    it('leaves an id alone that it holds already, whatever its state', async () => {
      fresh()
      const twice = entry()
      const later = entry({ delayMs: 60_000 })
      const { promise: gate, resolve: open } = Promise.withResolvers<void>()
      const seen: string[] = []
      await backend.add(queue, [twice, later])
      await backend.add(queue, [twice, later])
      expect(await backend.counts(queue)).toMatchObject({ waiting: 1, delayed: 1 })
      await consume(async ({ id }) => (seen.push(id), await gate, finished))
      await eventually(() => expect(seen).toHaveLength(1))
      await backend.add(queue, [twice, { ...later, delayMs: 0 }])
      expect(await backend.counts(queue)).toMatchObject({ waiting: 0, delayed: 1, active: 1 })
      open()
      await eventually(async () => expect(await backend.counts(queue)).toMatchObject({ active: 0 }))
      expect(seen).toEqual([twice.id])
    })

    it('takes an id again once its entry is gone', async () => {
      fresh()
      const again = entry()
      const seen: string[] = []
      await consume(({ id }) => (seen.push(id), finished))
      await backend.add(queue, [again])
      await drained()
      await backend.add(queue, [again])
      await eventually(() => expect(seen).toEqual([again.id, again.id]))
    })

    it('takes a bulk that is larger than one command', async () => {
      fresh()
      const seen = new Set<string>()
      await backend.add(
        queue,
        Array.from({ length: 1_100 }, () => entry()),
      )
      expect((await backend.counts(queue)).waiting).toBe(1_100)
      await consume(({ id }) => (seen.add(id), finished), { concurrency: 50 })
      await eventually(() => expect(seen.size).toBe(1_100), { timeoutMs: 30_000 })
    })

    it('holds a delayed entry back until it is due', async () => {
      fresh()
      const start = performance.now()
      let after = 0
      await consume(() => ((after = performance.now() - start), finished))
      await backend.add(queue, [entry({ delayMs: 300 })])
      await eventually(() => expect(after).toBeGreaterThan(0))
      expect(after).toBeGreaterThanOrEqual(295)
      expect(after).toBeLessThan(4_000)
    })

    it('delivers the urgent first: 0, then 1, then 2', async () => {
      fresh()
      const order: string[] = []
      await backend.add(queue, [
        entry({ name: 'two', priority: 2 }),
        entry({ name: 'one', priority: 1 }),
        entry({ name: 'zero' }),
      ])
      await consume((delivery) => (order.push(delivery.name), finished), { concurrency: 1 })
      await eventually(() => expect(order).toEqual(['zero', 'one', 'two']))
    })

    it('gives work without a row its payload, byte for byte, and keeps its result', async () => {
      fresh()
      const payload = {
        nul: 'a\0b',
        half: '\ud800',
        big: 1e300,
        ...(JSON.parse('{"__proto__":1}') as object),
      }
      const added = entry({ volatile: { ...volatile(payload), context: { requestId: 'r1' } } })
      let seen: Delivery | undefined
      await consume(async (delivery) => {
        seen = delivery
        await delivery.showProgress({ at: 3 })
        return { kind: 'finished', result: { rows: 2 } }
      })
      await backend.add(queue, [added])
      await eventually(async () => {
        expect((await backend.find(queue, added.id))?.state).toBe('completed')
      })
      expect(JSON.stringify(seen?.volatile?.payload)).toBe(JSON.stringify(payload))
      expect(seen?.volatile).toMatchObject({ attempt: 1, attempts: 3, context: { requestId: 'r1' } })
      const view = await backend.find(queue, added.id)
      expect(view).toMatchObject({ name: 'report', result: { rows: 2 }, progress: { at: 3 } })
      expect(await backend.find(queue, newId(1))).toBeUndefined()
    })

    it('retries work without a row as often as it says, then keeps it as failed', async () => {
      fresh()
      const added = entry({ volatile: volatile({}, 3) })
      const attempts: (number | undefined)[] = []
      await consume(({ volatile: work }) => {
        attempts.push(work?.attempt)
        return { kind: 'failed', error: new Error('no paper'), final: false }
      })
      await backend.add(queue, [added])
      await eventually(async () => {
        expect(await backend.find(queue, added.id)).toMatchObject({ state: 'failed', error: 'no paper' })
      })
      expect(attempts).toEqual([1, 2, 3])
    })

    it('ends the retries when told so', async () => {
      fresh()
      const added = entry({ volatile: volatile({}, 5) })
      let attempts = 0
      await consume(() => (attempts++, { kind: 'failed', error: new Error('never'), final: true }))
      await backend.add(queue, [added])
      await eventually(async () => expect((await backend.find(queue, added.id))?.state).toBe('failed'))
      expect(attempts).toBe(1)
    })

    it('brings a delayed delivery again, as often as it is delayed', async () => {
      fresh()
      const times: number[] = []
      await consume(() => {
        times.push(performance.now())
        return times.length < 4 ? { kind: 'delayed', ms: 50 } : finished
      })
      await backend.add(queue, [entry()])
      await eventually(() => expect(times).toHaveLength(4))
      expect((times[3] ?? 0) - (times[0] ?? 0)).toBeGreaterThanOrEqual(145)
      await drained()
    })

    it('gives a handed-back entry to another consumer', async () => {
      fresh()
      const seen: string[] = []
      const first = await consume(() => {
        first.quiet()
        seen.push('first')
        return { kind: 'handed-back' }
      })
      await backend.add(queue, [entry()])
      await eventually(() => expect(seen).toEqual(['first']))
      await eventually(async () =>
        expect(await backend.counts(queue)).toMatchObject({ waiting: 1, active: 0 }),
      )
      await consume(() => (seen.push('second'), finished))
      await eventually(() => expect(seen).toEqual(['first', 'second']))
      await drained()
    })

    it('loses nothing when nobody could decide upon a delivery', async () => {
      fresh()
      const errors: string[] = []
      let deliveries = 0
      await consume(
        () => {
          if (++deliveries === 1) throw new Error('a fault of ours')
          return finished
        },
        { onError: (error) => void errors.push(error.message) },
      )
      await backend.add(queue, [entry()])
      await eventually(() => expect(deliveries).toBe(2))
      expect(errors).toContain('a fault of ours')
      await drained()
    })

    it('fetches nothing while quiet, and goes on afterwards', async () => {
      fresh()
      const seen: string[] = []
      const consumer = await consume(({ id }) => (seen.push(id), finished))
      await backend.add(queue, [entry()])
      await eventually(() => expect(seen).toHaveLength(1))
      consumer.quiet()
      await backend.add(queue, [entry(), entry()])
      await clock.sleep(400)
      expect(seen).toHaveLength(1)
      expect(await backend.counts(queue)).toMatchObject({ waiting: 2, active: 0 })
      consumer.resume()
      await eventually(() => expect(seen).toHaveLength(3))
    })

    it('knows what is under way', async () => {
      fresh()
      const { promise: gate, resolve: open } = Promise.withResolvers<void>()
      const consumer = await consume(async () => (await gate, finished))
      const added = [entry(), entry()]
      await backend.add(queue, added)
      await eventually(() => expect(consumer.active()).toHaveLength(2))
      expect(consumer.active().toSorted()).toEqual(added.map(({ id }) => id).toSorted())
      open()
      await eventually(() => expect(consumer.active()).toEqual([]))
    })

    it('hands back at once what a dead runner held, and nothing of the others', async () => {
      fresh()
      const { promise: gate, resolve: open } = Promise.withResolvers<void>()
      const hold = async (): Promise<Disposition> => (await gate, finished)
      const dead = await consume(hold, { runner: 'dead', concurrency: 3 })
      const held = [entry(), entry(), entry()]
      await backend.add(queue, held)
      await eventually(() => expect(dead.active()).toHaveLength(3))
      const alive = await consume(hold, { runner: 'alive', concurrency: 1 })
      await backend.add(queue, [entry()])
      await eventually(() => expect(alive.active()).toHaveLength(1))
      dead.quiet()

      const again = new Set<string>()
      await consume(({ id }) => (again.add(id), finished), { runner: 'third' })
      const start = performance.now()
      const ids = await backend.handBack(queue, 'dead')
      expect(ids.toSorted()).toEqual(held.map(({ id }) => id).toSorted())
      await eventually(() => expect(again.size).toBe(3), { everyMs: 5 })
      // A lock that had to run out would take five seconds.
      expect(performance.now() - start).toBeLessThan(2_500)
      expect(await backend.handBack(queue, 'dead')).toEqual([])
      expect(alive.active()).toHaveLength(1)
      open()
    })

    it('tells a consumer of a lock that it lost', async () => {
      fresh()
      const { promise: gate, resolve: open } = Promise.withResolvers<void>()
      const lost: string[] = []
      const added = entry()
      const holder = await consume(async () => (await gate, finished), {
        runner: 'holder',
        concurrency: 1,
        onLost: (id) => void lost.push(id),
      })
      await backend.add(queue, [added])
      await eventually(() => expect(holder.active()).toHaveLength(1))
      await backend.handBack(queue, 'holder')
      await consume(async () => (await gate, finished))
      await eventually(() => expect(lost).toContain(added.id), { timeoutMs: 15_000 })
      open()
    })

    it('takes out an entry that waits, but none that runs or is not there', async () => {
      fresh()
      const { promise: gate, resolve: open } = Promise.withResolvers<void>()
      const [running, waiting, later] = [entry(), entry(), entry({ delayMs: 60_000 })]
      const consumer = await consume(async () => (await gate, finished), { concurrency: 1 })
      await backend.add(queue, [running])
      await eventually(() => expect(consumer.active()).toHaveLength(1))
      await backend.add(queue, [waiting, later])
      expect(await backend.remove(queue, waiting.id)).toBe(true)
      expect(await backend.remove(queue, later.id)).toBe(true)
      expect(await backend.remove(queue, running.id)).toBe(false)
      expect(await backend.remove(queue, newId(1))).toBe(false)
      expect(await backend.counts(queue)).toMatchObject({ waiting: 0, delayed: 0, active: 1 })
      open()
    })

    it('takes others while the end of some is written, but never more handlers at once than it may', async () => {
      fresh()
      const { promise: written, resolve: write } = Promise.withResolvers<void>()
      let running = 0
      let most = 0
      let begun = 0
      await backend.add(
        queue,
        Array.from({ length: 30 }, () => entry()),
      )
      const consumer = await consume(
        async (delivery) => {
          most = Math.max(most, ++running)
          begun++
          await clock.sleep(20)
          running--
          delivery.free?.()
          delivery.free?.()
          await written
          return finished
        },
        { concurrency: 2 },
      )
      // Ends that cannot be written must not pile up without bound either.
      await eventually(() => expect(begun).toBe(22))
      await clock.sleep(100)
      expect(begun).toBe(22)
      expect(consumer.active()).toHaveLength(22)
      expect(most).toBe(2)
      write()
      await drained()
      expect(begun).toBe(30)
    })

    it('brings what was put off in time, and the urgent in turn, however long the line is', async () => {
      fresh()
      const seen: string[] = []
      const dueAt = performance.now() + 300
      let lateMs = Number.POSITIVE_INFINITY
      let ahead = 0
      let running = 0
      let most = 0
      const keepFull = async (): Promise<void> => {
        const lack = 60 - (await backend.counts(queue)).waiting
        if (lack > 0)
          await backend.add(
            queue,
            Array.from({ length: lack }, () => entry({ name: 'line' })),
          )
      }
      await keepFull()
      await backend.add(queue, [entry({ name: 'later', delayMs: 300 }), entry({ name: 'two', priority: 2 })])
      await backend.add(queue, [entry({ name: 'one', priority: 1 })])
      const full = (async () => {
        while (!seen.includes('later')) await Promise.all([keepFull(), clock.sleep(20)])
      })()
      await consume(
        async ({ name: what }) => {
          seen.push(what)
          most = Math.max(most, ++running)
          if (what === 'later') lateMs = performance.now() - dueAt
          await clock.sleep(2)
          running--
          return finished
        },
        { concurrency: 4 },
      )
      await eventually(() => expect(seen).toContain('later'), { timeoutMs: 30_000 })
      ahead = seen.length
      await full
      await drained()
      // Behind those that waited already, and no further: sixty of them, four at a time.
      expect(lateMs).toBeLessThan(4_000)
      expect(most).toBe(4)
      expect(ahead).toBeGreaterThan(60)
      expect(seen.indexOf('one')).toBeLessThan(seen.indexOf('two'))
    })

    it('says which entries it had lost when their end came, and ends the others', async () => {
      fresh()
      const { promise: gate, resolve: open } = Promise.withResolvers<void>()
      const [taken, mine] = [entry(), entry()]
      const errors: string[] = []
      const holder = await consume(async () => (await gate, finished), {
        runner: 'holder',
        onError: (error) => void errors.push(error.message),
      })
      await backend.add(queue, [taken])
      await eventually(() => expect(holder.active()).toEqual([taken.id]))
      await backend.handBack(queue, 'holder')
      await backend.add(queue, [mine])
      open()
      // BullMQ's own words.
      await eventually(() =>
        expect(errors.join()).toMatch(new RegExp(`(Missing|mismatch).* ${taken.id}|${taken.id} is not in`)),
      )
      await drained()
    })

    it('has the same epoch as long as it forgets nothing', async () => {
      fresh()
      const marked = await backend.mark(queue)
      expect(await backend.epoch(queue)).toBe(marked)
      expect(await backend.mark(queue)).toBe(marked)
    })

    it('closes a consumer that never started, and one twice', async () => {
      fresh()
      const options = {
        queue,
        runner: 'r',
        concurrency: 1,
        process: async () => finished,
        onLost: () => undefined,
        onError: () => undefined,
      }
      await backend.consume(options).close(500)
      const consumer = await consume(() => finished)
      await expect(Promise.all([consumer.close(2_000), consumer.close(2_000)])).resolves.toBeDefined()
    })
  })
}

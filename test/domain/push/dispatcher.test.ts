import { expect, it } from 'vitest'
import type { SendResult } from '../../../src/domain/push/provider.ts'
import { createStubProvider } from '../../../src/domain/push/providers/stub.ts'
import { allShards } from '../../../src/domain/push/shard.ts'
import { eventually } from '../../support/processes.ts'
import { stubTransport, usePushGround } from './ground.ts'

const ground = usePushGround()

/** Claims what is due, and waits until what was sent is marked. */
async function fire(worker: {
  fire(shards: readonly number[]): Promise<void>
  inFlight: number
}): Promise<void> {
  await worker.fire(allShards)
  await eventually(async () => expect(worker.inFlight).toBe(0))
}

it('sends one cloud push for all that is due of a device, and none before', async () => {
  const { device, acceptance, push, worker, age, state } = ground()
  const phone = await device()
  const pushes = [push(phone), push(phone), push(phone, { payload: '"last"' })] as const
  const [sender, accepting] = [worker(), acceptance()]
  for (const each of pushes) await accepting.accept([each])
  await fire(sender)
  expect(sender.stub.sent).toEqual([])
  await age(phone, 10_000)
  await fire(sender)
  await fire(sender)
  expect(sender.stub.sent).toHaveLength(1)
  expect(sender.stub.sent[0]?.message).toMatchObject({
    count: 3,
    push: { id: pushes[2].id, payload: '"last"' },
  })
  expect(await state(pushes[0].id)).toBe('sent')
})

it('sends nothing that was confirmed, withdrawn, replaced, normal or past its life', async () => {
  const { device, acceptance, push, worker, age, web, pushes, state } = ground()
  const phone = await device()
  const accepting = acceptance()
  const confirmed = push(phone)
  await accepting.accept([confirmed])
  const node = await web()
  const listen = { listeners: [{ device: phone, generation: undefined }], after: undefined }
  const first = await node.open(listen)
  await first.next(0)
  await first.answered()
  await node.open(listen)
  const rest = [
    push(phone),
    push(phone, { topic: 't' }),
    push(phone, { priority: false }),
    push(phone, { ttlMs: 5_000 }),
  ] as const
  for (const each of rest) await accepting.accept([each])
  await accepting.accept([push(phone, { topic: 't', priority: false })])
  await pushes.withdraw(rest[0].id)
  await age(phone, 20_000)
  const sender = worker()
  await fire(sender)
  expect(sender.stub.sent).toEqual([])
  const states = await Promise.all([confirmed, ...rest].map((each) => state(each.id)))
  expect(states).toEqual(['confirmed', 'withdrawn', 'replaced', 'pending', 'expired'])
})

it('never sends more than the burst and one an interval, whoever fires', async () => {
  const { device, acceptance, push, worker } = ground()
  const phone = await device()
  const flood = { intervalMs: 400, burst: 3 }
  const workers = [worker({ flood }), worker({ flood }), worker({ flood })]
  const accepting = [acceptance(), acceptance()]
  const startedAt = performance.now()
  let accepted = 0
  const sentSoFar = (): number => workers.reduce((sum, each) => sum + each.stub.sent.length, 0)
  while (performance.now() - startedAt < 1_500 || sentSoFar() < 5) {
    await Promise.all(accepting.map((each) => each.accept([push(phone, { confirmMs: 0 })])))
    accepted += 2
    await Promise.all(workers.map((each) => each.fire(allShards)))
  }
  const elapsed = performance.now() - startedAt
  const sent = workers.flatMap((each) => each.stub.sent)
  expect(sent.length).toBeLessThanOrEqual(3 + Math.floor(elapsed / 400))
  // The rest goes out together when the limit allows it.
  await new Promise((resolve) => setTimeout(resolve, 450))
  await fire(workers[0] as (typeof workers)[number])
  const all = workers.flatMap((each) => each.stub.sent)
  expect(all.reduce((sum, each) => sum + each.message.count, 0)).toBe(accepted)
})

it('keeps id and collapse key when the sender dies and another takes over', async () => {
  const { device, acceptance, push, worker, postgres, age } = ground()
  const phone = await device()
  const one = push(phone, { confirmMs: 0 })
  await acceptance().accept([one])
  let release: (result: SendResult) => void = () => undefined
  const hanging = createStubProvider(() => new Promise((resolve) => (release = resolve)))
  const dead = worker({ provider: hanging })
  await dead.fire(allShards)
  const { rows } = await postgres.query<{ send_id: string; collapse: string }>(
    'SELECT send_id::text, collapse FROM pushes WHERE id = $1',
    [one.id],
  )
  // What came in between goes along with it, and it is still the same cloud push.
  await acceptance().accept([push(phone, { confirmMs: 0 })])
  await age(phone, 7_000)
  const heir = worker()
  await fire(heir)
  expect(heir.stub.sent).toHaveLength(1)
  expect(heir.stub.sent[0]?.message).toMatchObject({
    id: rows[0]?.send_id,
    collapse: rows[0]?.collapse,
    count: 2,
  })
  release({ kind: 'rejected', reason: 'the dead one speaks' })
  await eventually(async () => expect(dead.inFlight).toBe(0))
  expect((await ground().pushes.show(one.id))?.devices[0]?.state).toBe('sent')
})

it('renews the lease of a send that takes its time', async () => {
  const { device, acceptance, push, worker, postgres } = ground()
  const phone = await device()
  await acceptance().accept([push(phone, { confirmMs: 0 })])
  let release: (result: SendResult) => void = () => undefined
  const slow = worker({ provider: createStubProvider(() => new Promise((resolve) => (release = resolve))) })
  await slow.fire(allShards)
  await postgres.query(`UPDATE pushes SET due_at = now() + interval '100 ms' WHERE device = $1`, [phone])
  await eventually(
    async () => {
      const { rows } = await postgres.query<{ s: number }>(
        'SELECT extract(epoch FROM due_at - now())::float8 AS s FROM pushes WHERE device = $1',
        [phone],
      )
      expect(rows[0]?.s).toBeGreaterThan(3)
    },
    { timeoutMs: 15_000 },
  )
  release({ kind: 'accepted', id: 'x' })
})

it('goes to the next transport when one is gone, refused, or not configured', async () => {
  const { device, devices, acceptance, push, worker, state, age } = ground()
  const phone = await device([
    stubTransport('gone'),
    { kind: 'fcm', address: 'token', options: {} },
    stubTransport('refused'),
    stubTransport('good'),
  ])
  const one = push(phone, { confirmMs: 0 })
  await acceptance().accept([one])
  const answers: Record<string, SendResult> = {
    gone: { kind: 'gone', reason: 'expired' },
    refused: { kind: 'rejected', reason: 'no' },
    good: { kind: 'accepted', id: 'ok' },
  }
  const provider = createStubProvider(({ address }) => answers[address] as SendResult)
  const sender = worker({ provider })
  await fire(sender)
  await eventually(async () => {
    await fire(sender)
    expect(await state(one.id)).toBe('sent')
  })
  expect(provider.sent.map((each) => each.transport.address)).toEqual(['gone', 'refused', 'good'])
  const view = await devices.get(phone)
  expect(view?.transports.map((each) => each.deadAt !== undefined)).toEqual([true, false, false, false])
  // A later push does not try the dead one.
  await age(phone, 0)
  await acceptance().accept([push(phone, { confirmMs: 0 })])
  await fire(sender)
  await eventually(async () => expect(provider.sent.at(-1)?.transport.address).toBe('good'))
  expect(provider.sent.filter((each) => each.transport.address === 'gone')).toHaveLength(1)
})

it('does not bury an address that was registered anew while "gone" was on its way', async () => {
  const { device, devices, acceptance, push, worker, state } = ground()
  const phone = await device([stubTransport('old')])
  const one = push(phone, { confirmMs: 0 })
  await acceptance().accept([one])
  const provider = createStubProvider(async ({ address }) => {
    if (address !== 'old') return { kind: 'accepted', id: 'new' }
    await devices.put(phone, { transports: [stubTransport('new')] })
    return { kind: 'gone', reason: 'expired' }
  })
  const sender = worker({ provider })
  await fire(sender)
  await eventually(async () => {
    await fire(sender)
    expect(await state(one.id)).toBe('sent')
  })
  expect(provider.sent.map((each) => each.transport.address)).toEqual(['old', 'new'])
  expect((await devices.get(phone))?.transports[0]?.deadAt).toBeUndefined()
})

it('does not bury the same address either, when it was registered anew meanwhile', async () => {
  const { device, devices, acceptance, push, worker, state } = ground()
  const phone = await device([stubTransport('same')])
  const one = push(phone, { confirmMs: 0 })
  await acceptance().accept([one])
  let tries = 0
  const provider = createStubProvider(async () => {
    tries += 1
    if (tries > 1) return { kind: 'accepted', id: 'ok' }
    await devices.put(phone, { transports: [stubTransport('same')] })
    return { kind: 'gone', reason: 'said of the former registration' }
  })
  const sender = worker({ provider })
  await eventually(async () => {
    await fire(sender)
    expect(await state(one.id)).toBe('sent')
  })
  expect((await devices.get(phone))?.transports[0]?.deadAt).toBeUndefined()
})

it('escalates to the next transport when a sent push is not confirmed in time', async () => {
  const { device, acceptance, push, worker, age, state, web } = ground()
  const phone = await device([stubTransport('first'), stubTransport('second')])
  const [one, two] = [push(phone, { confirmMs: 0, escalateMs: 60_000 }), push(phone, { confirmMs: 0 })]
  const sender = worker()
  await acceptance().accept([one, two])
  await fire(sender)
  await age(phone, 61_000)
  await fire(sender)
  expect(sender.stub.sent.map((each) => [each.transport.address, each.message.count])).toEqual([
    ['first', 2],
    ['second', 1],
  ])
  expect(await state(one.id)).toBe('sent')
  const listen = { listeners: [{ device: phone, generation: undefined }], after: undefined }
  const given = await (await (await web()).open(listen)).next(0)
  expect(given).toMatchObject({ kind: 'notifications', given: { length: 2 } })
})

it('goes on to the next transport when nothing leaves for the first one for long', async () => {
  const { device, acceptance, push, worker } = ground()
  const phone = await device([stubTransport('unreachable'), stubTransport('reachable')])
  const provider = createStubProvider(
    (transport, message): SendResult =>
      transport.address === 'unreachable'
        ? { kind: 'unsent', reason: 'refused', afterMs: 1 }
        : { kind: 'accepted', id: message.id },
  )
  const sender = worker({ provider })
  await acceptance().accept([push(phone, { confirmMs: 0 })])
  await eventually(
    async () => {
      await sender.fire(allShards)
      const addresses = provider.sent.map(({ transport }) => transport.address)
      expect(addresses.filter((address) => address === 'unreachable')).toHaveLength(13)
      expect(addresses.at(-1)).toBe('reachable')
    },
    { timeoutMs: 30_000, everyMs: 20 },
  )
})

it('counts for each transport of a kind what could not leave for it, and reaches the last of many', async () => {
  const { device, acceptance, push, worker } = ground()
  const names = ['one', 'two', 'three', 'four']
  const phone = await device(names.map((name) => stubTransport(name)))
  const provider = createStubProvider(
    (transport, message): SendResult =>
      transport.address === 'four'
        ? { kind: 'accepted', id: message.id }
        : { kind: 'unsent', reason: 'refused', afterMs: 1 },
  )
  const sender = worker({ provider })
  await acceptance().accept([push(phone, { confirmMs: 0 })])
  const triesOf = (name: string): number =>
    provider.sent.filter(({ transport }) => transport.address === name).length
  await eventually(
    async () => {
      await sender.fire(allShards)
      expect(triesOf('four')).toBe(1)
    },
    { timeoutMs: 30_000, everyMs: 20 },
  )
  expect([triesOf('one'), triesOf('two')]).toEqual([13, 13])
  // Its log is full by then, and tells of no further try.
  expect(triesOf('three')).toBeLessThan(13)
}, 20_000)

it('keeps what has nowhere to go for the next listen, and sends it when a transport comes', async () => {
  const { device, devices, acceptance, push, worker, state } = ground()
  const phone = await device([])
  const one = push(phone, { confirmMs: 0 })
  await acceptance().accept([one])
  const sender = worker()
  await fire(sender)
  expect(await state(one.id)).toBe('undeliverable')
  await devices.put(phone, { transports: [stubTransport()] })
  await fire(sender)
  expect(await state(one.id)).toBe('sent')
})

it('gives attempt and flood token back for what never left the house', async () => {
  const { device, acceptance, push, worker, age, postgres } = ground()
  const phone = await device()
  await acceptance().accept([push(phone, { confirmMs: 0 })])
  let down = true
  const provider = createStubProvider(() =>
    down ? { kind: 'unsent', reason: 'breaker', afterMs: 50 } : { kind: 'accepted', id: 'ok' },
  )
  const sender = worker({ provider, flood: { intervalMs: 60_000, burst: 1 } })
  for (let round = 0; round < 3; round += 1) {
    await fire(sender)
    await age(phone, 1_000)
  }
  down = false
  await fire(sender)
  expect(provider.sent.map((each) => each.result.kind)).toEqual(['unsent', 'unsent', 'unsent', 'accepted'])
  const { rows } = await postgres.query(
    'SELECT extract(epoch FROM flood_at - now()) > 50 AS spent FROM devices WHERE id = $1',
    [phone],
  )
  expect(rows).toEqual([{ spent: true }])
})

it('tells the whole story of a push', async () => {
  const { device, acceptance, push, worker, pushes } = ground()
  const phone = await device()
  const one = push(phone, { confirmMs: 0 })
  await acceptance().accept([one])
  await fire(worker())
  const log = await pushes.show(one.id)
  expect(log?.devices[0]?.milestones.map((each) => each.name)).toEqual(['accepted', 'due', 'claimed', 'sent'])
  expect(log?.devices[0]?.milestones.at(-1)).toMatchObject({
    transport: 'stub',
    providerId: expect.stringMatching(/^stub-/),
  })
})

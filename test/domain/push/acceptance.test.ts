import { expect, it } from 'vitest'
import { DEVICE_NOT_FOUND } from '../../../src/domain/push/errors.ts'
import { usePushGround } from './ground.ts'

const ground = usePushGround()

it('writes a row for the device and arms twice its reconnect time', async () => {
  const { device, acceptance, push, postgres, armed } = ground()
  const phone = await device()
  const one = push(phone, { payload: '{"text":"hello\\u0000"}' })
  const before = armed.length
  expect(await acceptance().accept([one])).toEqual([{ id: one.id, devices: 1 }])
  const { rows } = await postgres.query(
    'SELECT state, payload::text, extract(epoch FROM due_at - accepted_at)::int AS s FROM pushes WHERE id = $1',
    [one.id],
  )
  expect(rows).toEqual([{ state: 'pending', payload: '{"text":"hello\\u0000"}', s: 10 }])
  expect(armed.length).toBe(before + 1)
})

it('takes a push of the same id once', async () => {
  const { device, acceptance, push, postgres } = ground()
  const one = push(await device())
  await acceptance().accept([one])
  await acceptance().accept([one])
  const { rows } = await postgres.query('SELECT count(*)::int AS n FROM pushes WHERE id = $1', [one.id])
  expect(rows).toEqual([{ n: 1 }])
})

it('refuses a whole request for one unknown device and leaves its neighbours in the batch alone', async () => {
  const { device, acceptance, push, state } = ground()
  const phone = await device()
  const accepting = acceptance()
  const [good, doomed, bad] = [push(phone), push(phone), push('nobody')]
  const [first, second] = await Promise.allSettled([
    accepting.accept([good]),
    accepting.accept([doomed, bad]),
  ])
  expect(first.status).toBe('fulfilled')
  expect(second).toMatchObject({ status: 'rejected' })
  const { reason } = second as PromiseRejectedResult
  expect(DEVICE_NOT_FOUND.is(reason)).toBe(true)
  expect(reason).toMatchObject({ faults: [{ path: '/1/to/device', message: 'is not registered' }] })
  expect(await state(good.id)).toBe('pending')
  expect(await state(doomed.id)).toBeUndefined()
})

it('sends to all devices of a user and of a group, and to nobody when there are none', async () => {
  const { devices, acceptance, push } = ground()
  for (const name of ['u1', 'u2']) await devices.put(name, { user: 'ann', groups: ['team'], transports: [] })
  await devices.put('u3', { groups: ['team'], transports: [] })
  const accepted = await acceptance().accept([
    push({ user: 'ann' }),
    push({ group: 'team' }),
    push({ user: 'nobody' }),
  ])
  expect(accepted.map((each) => each.devices)).toEqual([2, 3, 0])
})

it('replaces what is open under the same topic and keeps its earlier timeout', async () => {
  const { device, acceptance, push, postgres, state } = ground()
  const phone = await device()
  const accepting = acceptance()
  const first = push(phone, { topic: 'score', confirmMs: 3_000 })
  await accepting.accept([first])
  const second = push(phone, { topic: 'score', confirmMs: 60_000 })
  await accepting.accept([second])
  expect(await state(first.id)).toBe('replaced')
  const { rows } = await postgres.query(
    'SELECT (SELECT due_at FROM pushes WHERE id = $1) = (SELECT due_at FROM pushes WHERE id = $2) AS same',
    [first.id, second.id],
  )
  expect(rows).toEqual([{ same: true }])
})

it('leaves one open of many that come at once under one topic', async () => {
  const { device, acceptance, push, postgres } = ground()
  const phone = await device()
  const processes = [acceptance(), acceptance(), acceptance()]
  for (let round = 0; round < 30; round += 1) {
    const pair = () => [push(phone, { topic: 'score' }), push(phone, { topic: 'score' })]
    await Promise.all(processes.map((each) => each.accept(pair())))
    const { rows } = await postgres.query(
      'SELECT count(*)::int AS open FROM pushes WHERE device = $1 AND closed_at IS NULL',
      [phone],
    )
    expect(rows).toEqual([{ open: 1 }])
  }
})

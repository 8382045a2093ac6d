import { describe, expect, it } from 'vitest'
import { CURSOR_INVALID, DEVICE_NOT_FOUND, DEVICE_TOKEN_INVALID } from '../../../src/domain/push/errors.ts'
import type { Listen } from '../../../src/domain/push/listen.ts'
import type { Listens } from '../../../src/domain/push/listens.ts'
import { usePushGround } from './ground.ts'

const listener = (device: string) => ({ device, generation: undefined })
const open = (web: Listens, device: string, after?: string): Promise<Listen> =>
  web.open({ listeners: [listener(device)], after })

/** Ids of the notifications, once there are any. */
async function idsOf(listen: Listen, waitMs = 5_000): Promise<string[]> {
  const answer = await listen.next(waitMs)
  await listen.answered()
  return answer.kind === 'notifications' ? answer.given.map((each) => each.notification.id) : [answer.kind]
}

describe.each(['postgres', 'redis'] as const)('listening, woken over %s', (engine) => {
  const ground = usePushGround(engine)

  it('gives what was there before, in the order of acceptance', async () => {
    const { device, acceptance, push, web } = ground()
    const phone = await device()
    const pushes = [push(phone), push(phone), push(phone)]
    const accepting = acceptance()
    for (const each of pushes) await accepting.accept([each])
    const listen = await open(await web(), phone)
    expect(await idsOf(listen)).toEqual(pushes.map((each) => each.id))
  })

  it('wakes a listen that waits on another node, and gives the payload as it was sent', async () => {
    const { device, acceptance, push, web } = ground()
    const phone = await device()
    const listen = await open(await web(), phone)
    const waiting = listen.next(5_000)
    const one = push(phone, { payload: '{"a":1.0}', topic: 'news' })
    await acceptance().accept([one])
    expect(await waiting).toMatchObject({
      kind: 'notifications',
      given: [{ notification: { id: one.id, device: phone, topic: 'news', payload: '{"a":1.0}' } }],
    })
  })

  it('is quiet when the time passes, and then knows where it stands', async () => {
    const { device, web } = ground()
    const listen = await open(await web(), await device())
    expect(await listen.next(20)).toMatchObject({ kind: 'quiet', cursor: expect.any(String) })
  })

  it('confirms by the next listen exactly what was delivered up to its cursor, and gives the rest again', async () => {
    const { device, acceptance, push, web, state } = ground()
    const phone = await device()
    const nodes = [await web(), await web()] as const
    const accepting = acceptance()
    const [first, second, third] = [push(phone), push(phone), push(phone)]
    await accepting.accept([first])
    const one = await (await open(nodes[0], phone)).next(0)
    const cursor = one.kind === 'notifications' ? one.cursor : ''
    await accepting.accept([second])
    // The answer to this one is lost on its way: nobody has its cursor.
    expect(await idsOf(await open(nodes[1], phone, cursor))).toEqual([second.id])
    expect(await state(first.id)).toBe('confirmed')
    await accepting.accept([third])
    expect(await idsOf(await open(nodes[0], phone, cursor))).toEqual([second.id, third.id])
    expect(await state(second.id)).toBe('delivered')
  })

  it('gives again what never left, also to a listen without a cursor', async () => {
    const { device, acceptance, push, web, state } = ground()
    const phone = await device()
    const nodes = [await web(), await web()] as const
    const [first, second] = [push(phone), push(phone)]
    await acceptance().accept([first])
    const listen = await open(nodes[0], phone)
    expect(await idsOf(listen)).toEqual([first.id])
    await acceptance().accept([second])
    // The process dies here: what it fetched has a number, and no byte of it was sent.
    expect(await listen.next(5_000)).toMatchObject({ kind: 'notifications' })
    expect(await idsOf(await open(nodes[1], phone))).toEqual([second.id])
    expect([await state(first.id), await state(second.id)]).toEqual(['confirmed', 'delivered'])
    expect(await idsOf(await open(nodes[1], phone), 0)).toEqual(['quiet'])
    expect(await state(second.id)).toBe('confirmed')
  })

  it('gives again what was marked as leaving when its client proved to be gone', async () => {
    const { device, acceptance, push, web, state } = ground()
    const phone = await device()
    const nodes = [await web(), await web()] as const
    const one = push(phone)
    await acceptance().accept([one])
    const listen = await open(nodes[0], phone)
    expect(await idsOf(listen)).toEqual([one.id])
    await listen.giveBack()
    expect(await idsOf(await open(nodes[1], phone))).toEqual([one.id])
    expect(await state(one.id)).toBe('delivered')
  })

  it('confirms all that was delivered by a listen without a cursor, and nothing else', async () => {
    const { device, acceptance, push, web, state } = ground()
    const phone = await device()
    const node = await web()
    const accepting = acceptance()
    const [first, second] = [push(phone), push(phone)]
    await accepting.accept([first])
    await idsOf(await open(node, phone))
    await accepting.accept([second])
    expect(await idsOf(await open(node, phone))).toEqual([second.id])
    expect(await state(first.id)).toBe('confirmed')
    expect(await state(second.id)).toBe('delivered')
  })

  it('lets the newer listen win, on this node and on others, while they wait', async () => {
    const { device, web } = ground()
    const phone = await device()
    const nodes = [await web(), await web()] as const
    const oldest = (await open(nodes[0], phone)).next(10_000)
    const middle = (await open(nodes[0], phone)).next(10_000)
    expect(await oldest).toEqual({ kind: 'replaced' })
    const newest = await open(nodes[1], phone)
    expect(await middle).toEqual({ kind: 'replaced' })
    expect(await newest.next(0)).toMatchObject({ kind: 'quiet' })
  })

  it('gives nothing to a listen that was replaced, even if nobody told it', async () => {
    const { device, acceptance, push, web, postgres } = ground()
    const phone = await device()
    const listen = await open(await web(), phone)
    await postgres.query('UPDATE devices SET listen_id = gen_random_uuid() WHERE id = $1', [phone])
    await acceptance().accept([push(phone)])
    expect(await listen.next(3_000)).toEqual({ kind: 'replaced' })
  })

  it('loses no wake-up, however listens and pushes fall together', async () => {
    const { device, acceptance, push, web } = ground()
    const phone = await device()
    const nodes = [await web(), await web()]
    const processes = [acceptance(), acceptance()]
    let after: string | undefined
    for (let round = 0; round < 150; round += 1) {
      const one = push(phone)
      const [listen] = await Promise.all([
        open(nodes[round % 2] as Listens, phone, after),
        processes[round % 2]?.accept([one]),
      ])
      // Far below the look that happens every ten seconds regardless.
      const answer = await listen.next(3_000)
      expect(answer).toMatchObject({ kind: 'notifications', given: [{ notification: { id: one.id } }] })
      after = answer.kind === 'notifications' ? answer.cursor : undefined
      listen.close()
    }
  })

  it('serves several devices by one listen, each with its own position', async () => {
    const { device, acceptance, push, web, state } = ground()
    const [one, two] = [await device(), await device()]
    const node = await web()
    const accepting = acceptance()
    const [first, second] = [push(one), push(two)]
    await accepting.accept([first])
    const both = await node.open({ listeners: [listener(one), listener(two)], after: undefined })
    expect(await idsOf(both)).toEqual([first.id])
    await accepting.accept([second])
    const answer = await both.next(5_000)
    expect(answer).toMatchObject({ kind: 'notifications', given: [{ notification: { id: second.id } }] })
    const cursor = answer.kind === 'notifications' ? answer.cursor : ''
    // A listen of one of them with the cursor of both confirms that one.
    await node.open({ listeners: [listener(two)], after: cursor })
    expect([await state(first.id), await state(second.id)]).toEqual(['delivered', 'confirmed'])
  })

  it('refuses unknown devices, old tokens, and cursors that are none or of another device', async () => {
    const { device, devices, web, postgres } = ground()
    const [phone, other] = [await device(), await device()]
    const node = await web()
    const foreign = (await open(node, other)).cursor
    await expect(open(node, 'nobody')).rejects.toSatisfy(DEVICE_NOT_FOUND.is)
    await expect(open(node, phone, 'garbage')).rejects.toSatisfy(CURSOR_INVALID.is)
    await expect(open(node, phone, foreign)).rejects.toSatisfy(CURSOR_INVALID.is)
    await expect(node.confirm([listener(phone)], foreign)).rejects.toSatisfy(CURSOR_INVALID.is)
    const { rows } = await postgres.query<{ generation: string }>(
      'SELECT generation::text FROM devices WHERE id = $1',
      [phone],
    )
    const generation = rows[0]?.generation
    await devices.remove(phone)
    await devices.put(phone, { transports: [] })
    const stale = node.open({ listeners: [{ device: phone, generation }], after: undefined })
    await expect(stale).rejects.toSatisfy(DEVICE_TOKEN_INVALID.is)
    expect(node.size).toBe(1)
  })

  it('confirms what a stream gave, one by one', async () => {
    const { device, acceptance, push, web, state } = ground()
    const phone = await device()
    const node = await web()
    const pushes = [push(phone), push(phone)] as const
    const accepting = acceptance()
    for (const each of pushes) await accepting.accept([each])
    const stream = await node.open({ listeners: [listener(phone)], after: undefined, stream: true })
    const answer = await stream.next(0)
    const given = answer.kind === 'notifications' ? answer.given : []
    expect(await node.confirm([listener(phone)], given[0]?.cursor ?? '')).toBe(1)
    expect([await state(pushes[0].id), await state(pushes[1].id)]).toEqual(['confirmed', 'delivered'])
  })

  it('lengthens and shortens the timeout with the time that the device takes to come back', async () => {
    const { device, acceptance, push, web, postgres } = ground()
    const phone = await device()
    const node = await web()
    const reconnect = async (): Promise<number> => {
      const { rows } = await postgres.query<{ ms: number }>(
        'SELECT reconnect_ms AS ms FROM devices WHERE id = $1',
        [phone],
      )
      return rows[0]?.ms ?? 0
    }
    await acceptance().accept([push(phone)])
    await idsOf(await open(node, phone))
    await open(node, phone)
    // At once: clamped to 4/5 of 5 s, which counts for a fifth.
    expect(await reconnect()).toBe(4_800)
    await acceptance().accept([push(phone)])
    await idsOf(await open(node, phone))
    await postgres.query(`UPDATE pushes SET delivered_at = now() - interval '1 hour' WHERE device = $1`, [
      phone,
    ])
    await open(node, phone)
    expect(await reconnect()).toBe(5_280)
  })

  it('answers waiting listens when the process is about to stop', async () => {
    const { device, web } = ground()
    const node = await web()
    const waiting = (await open(node, await device())).next(60_000)
    node.settle()
    expect(await waiting).toMatchObject({ kind: 'quiet' })
  })
})

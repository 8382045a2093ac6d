import { randomBytes } from 'node:crypto'
import { rename, rm } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { PUSH_PAYLOAD_UNAVAILABLE } from '../../../src/domain/push/errors.ts'
import type { Listen } from '../../../src/domain/push/listen.ts'
import { createPushPayloads } from '../../../src/domain/push/payloads.ts'
import type { NewPush, Notification } from '../../../src/domain/push/push.ts'
import { allShards } from '../../../src/domain/push/shard.ts'
import { createLog } from '../../../src/platform/log.ts'
import type { PayloadStore } from '../../../src/platform/queues/payload-store.ts'
import { eventually } from '../../support/processes.ts'
import { usePushGround } from './ground.ts'

const ground = usePushGround()

/** JSON of so many bytes, and of no other push. */
const payloadOf = (bytes: number): string =>
  `"${randomBytes(bytes)
    .toString('base64')
    .slice(0, bytes - 2)}"`
const open = async (device: string, after?: string): Promise<Listen> =>
  (await ground().web()).open({ listeners: [{ device, generation: undefined }], after })

async function given(listen: Listen, waitMs = 0): Promise<Notification[]> {
  const answer = await listen.next(waitMs)
  await listen.answered()
  return answer.kind === 'notifications' ? answer.given.map(({ notification }) => notification) : []
}

async function rowsOf(push: string): Promise<string[]> {
  const sql = 'SELECT payload::text FROM pushes WHERE id = $1'
  return (await ground().postgres.query<{ payload: string }>(sql, [push])).rows.map(({ payload }) => payload)
}

/** The stores, or one of them, as on a disk that is not mounted. */
async function takeAwayStores(folder = ground().folder): Promise<() => Promise<void>> {
  let away = true
  await rename(folder, `${folder}.away`)
  const bringBack = async (): Promise<void> => {
    if (!away) return
    away = false
    await rm(folder, { recursive: true, force: true })
    await rename(`${folder}.away`, folder)
  }
  onTestFinished(bringBack)
  return bringBack
}

it('keeps a large payload once for however many devices, and gives it to each as it was sent', async () => {
  const { device, devices, acceptance, push } = ground()
  const phones = await Promise.all([device(), device(), device()])
  for (const phone of phones) await devices.put(phone, { user: 'ann', transports: [] })
  const payload = payloadOf(200_000)
  const one = push({ user: 'ann' }, { payload })
  await acceptance().accept([one])
  const rows = await rowsOf(one.id)
  expect(rows).toHaveLength(3)
  expect(Math.max(...rows.map((row) => row.length))).toBeLessThan(200)
  for (const phone of phones) expect(await given(await open(phone))).toMatchObject([{ id: one.id, payload }])
})

it('takes one within a transaction, and one that looks like what stands in a row instead', async () => {
  const { device, acceptance, push, postgres } = ground()
  const phone = await device()
  const large = push(phone, { payload: payloadOf(20_000) })
  const alike = push(phone, { payload: `{"baton:payload":"${'a'.repeat(64)}","bytes":3}` })
  const accepting = acceptance()
  const claimed = await accepting.claim([large, alike])
  await postgres.transaction(async (client) => {
    const { follow } = await accepting.acceptIn(client, claimed)
    follow()
  })
  const found = await given(await open(phone))
  expect(found.map(({ payload }) => payload)).toEqual([large.payload, alike.payload])
})

it('gives as much as an answer holds, and confirms nothing of the rest', async () => {
  const { device, acceptance, push } = ground()
  const phone = await device()
  const accepting = acceptance()
  const pushes = Array.from({ length: 6 }, () => push(phone, { payload: payloadOf(900_000) }))
  for (const each of pushes) await accepting.accept([each])
  // Each listen confirms what was delivered before, since it brings no cursor.
  const first = await given(await open(phone))
  const second = await given(await open(phone))
  expect([first.length, second.length]).toEqual([4, 2])
  expect([...first, ...second].map(({ id }) => id)).toEqual(pushes.map(({ id }) => id))
  // A stream goes on by itself.
  const more = Array.from({ length: 6 }, () => push(phone, { payload: payloadOf(900_000) }))
  for (const each of more) await accepting.accept([each])
  const listen = await open(phone)
  const streamed = [...(await given(listen)), ...(await given(listen))]
  expect(streamed.map(({ payload }) => payload)).toEqual(more.map(({ payload }) => payload))
})

it('holds up what cannot be read now, and what came after it, until it can', async () => {
  const { device, acceptance, push, state, postgres } = ground()
  const phone = await device()
  const accepting = acceptance()
  const pushes = [push(phone), push(phone, { payload: payloadOf(20_000) }), push(phone)] as const
  for (const each of pushes) await accepting.accept([each])
  const bringBack = await takeAwayStores()
  const listen = await open(phone)
  expect((await given(listen)).map(({ id }) => id)).toEqual([pushes[0].id])
  // It confirms what was given, and not what was held up.
  const later = await open(phone)
  expect(await given(later)).toEqual([])
  expect(await Promise.all(pushes.map(({ id }) => state(id)))).toEqual(['confirmed', 'pending', 'pending'])
  // It is told by its process, and not found by the look that every listen gets each ten seconds.
  const ask = postgres.query.bind(postgres)
  const asked = vi.spyOn(postgres, 'query').mockImplementation(async (sql, values) => {
    if (typeof sql === 'object' && sql.name === 'push-look') return { rows: [], rowCount: 0 } as never
    return ask(sql as never, values)
  })
  onTestFinished(() => asked.mockRestore())
  await bringBack()
  const found = await given(later, 20_000)
  expect(found.map(({ id, payload }) => [id, payload])).toEqual([
    [pushes[1].id, pushes[1].payload],
    [pushes[2].id, undefined],
  ])
}, 40_000)

it('asks for what cannot be read now with every look, and not as fast as it can', async () => {
  const { device, acceptance, push, postgres } = ground()
  const phone = await device()
  // As many as one fetch brings: there may be more behind them.
  const pushes = Array.from({ length: 100 }, (_, index) =>
    push(phone, index === 0 ? { payload: payloadOf(20_000) } : {}),
  )
  await acceptance().accept(pushes)
  const bringBack = await takeAwayStores()
  const asked = vi.spyOn(postgres, 'query')
  onTestFinished(() => asked.mockRestore())
  expect(await given(await open(phone))).toEqual([])
  const fetched = asked.mock.calls.filter(([sql]) => typeof sql === 'object' && sql.name === 'push-fetch')
  expect(fetched).toHaveLength(1)
  await bringBack()
})

it('says so when no copy is left, and goes on with what came after it', async () => {
  const { device, acceptance, push, folder } = ground()
  const phone = await device()
  const accepting = acceptance()
  const pushes = [push(phone, { payload: payloadOf(20_000) }), push(phone, { payload: '7' })] as const
  for (const each of pushes) await accepting.accept([each])
  const body = (JSON.parse((await rowsOf(pushes[0].id))[0] ?? '') as Record<string, string>)['baton:payload']
  for (const store of ['a', 'b']) {
    await rm(path.join(folder, store, 'bodies', (body ?? '').slice(0, 2), body ?? ''))
  }
  const found = await given(await open(phone))
  expect(found).toMatchObject([
    { id: pushes[0].id, payloadLost: true },
    { id: pushes[1].id, payload: '7' },
  ])
  expect(found[0]?.payload).toBeUndefined()
})

it('keeps it in the row of one device while the stores are away, and refuses it for many', async () => {
  const { device, devices, acceptance, push } = ground()
  const phone = await device()
  await devices.put(phone, { user: 'bob', transports: [] })
  const accepting = acceptance()
  const payload = payloadOf(20_000)
  const bringBack = await takeAwayStores()
  const [single, many] = [push(phone, { payload }), push({ user: 'bob' }, { payload })]
  await accepting.accept([single])
  await expect(accepting.accept([push(phone), many])).rejects.toSatisfy(PUSH_PAYLOAD_UNAVAILABLE.is)
  expect(await given(await open(phone))).toMatchObject([{ id: single.id, payload }])
  await bringBack()
  await accepting.accept([many])
  expect(await given(await open(phone))).toMatchObject([{ id: many.id, payload }])
}, 40_000)

it('begins with one copy for many devices while one store is away, says so, and asks for the other', async () => {
  const { device, devices, acceptance, push, folder, postgres } = ground()
  const phone = await device()
  await devices.put(phone, { user: 'cid', transports: [] })
  const accepting = acceptance()
  await accepting.accept([push(phone, { payload: payloadOf(20_000) })])
  await given(await open(phone))
  await takeAwayStores(path.join(folder, 'b'))
  const payload = payloadOf(20_000)
  const [single, many] = [push(phone, { payload: payloadOf(20_000) }), push({ user: 'cid' }, { payload })]
  expect(await accepting.accept([single, many])).toEqual([
    { id: single.id, devices: 1 },
    { id: many.id, devices: 1, payloadCopies: 1 },
  ])
  // Where the row can have it, it does: that is worth more than one copy.
  expect(await rowsOf(single.id)).toEqual([single.payload])
  const body = (JSON.parse((await rowsOf(many.id))[0] ?? '') as Record<string, string>)['baton:payload']
  const { rows } = await postgres.query('SELECT reason FROM body_repairs WHERE body = $1', [body])
  expect(rows).toEqual([{ reason: 'a copy is missing' }])
  expect(await given(await open(phone))).toMatchObject([{ id: single.id }, { id: many.id, payload }])
}, 40_000)

it('reaches a provider that has room for it; another one gets the push without', async () => {
  const { device, acceptance, push, worker, postgres } = ground()
  const accepting = acceptance()
  const sendOf = async (maxBytes: number) => {
    // Other tests left pushes that are due by now.
    await postgres.query('DELETE FROM pushes')
    const one = push(await device(), { payload: payloadOf(20_000), confirmMs: 0 })
    await accepting.accept([one])
    const sender = worker()
    Object.assign(sender.stub, { maxBytes })
    await sender.fire(allShards)
    await eventually(() => expect(sender.stub.sent).toHaveLength(1))
    return { sent: sender.stub.sent[0]?.message.push, payload: one.payload }
  }
  const whole = await sendOf(20_000)
  expect(whole.sent?.payload).toBe(whole.payload)
  const cut = await sendOf(19_999)
  expect(cut.sent).toMatchObject({ truncated: true })
  expect(cut.sent?.payload).toBeUndefined()
  await takeAwayStores()
  // In the row meanwhile, where it is at hand.
  const kept = await sendOf(20_000)
  expect(kept.sent?.payload).toBe(kept.payload)
})

it('goes out on time without it while it cannot be read', async () => {
  const { device, acceptance, push, worker, postgres } = ground()
  await postgres.query('DELETE FROM pushes')
  await acceptance().accept([push(await device(), { payload: payloadOf(20_000), confirmMs: 0 })])
  await takeAwayStores()
  const sender = worker()
  await sender.fire(allShards)
  await eventually(() => expect(sender.stub.sent).toHaveLength(1))
  expect(sender.stub.sent[0]?.message.push).toMatchObject({ truncated: true })
})

it('fills no more answers at once than there is room for; the others wait in their rows until one is out', async () => {
  const { device, devices, acceptance, push } = ground()
  const accepting = acceptance()
  const phones = await Promise.all(Array.from({ length: 20 }, () => device()))
  for (const phone of phones) await devices.put(phone, { groups: ['crowd'], transports: [] })
  const payloads = Array.from({ length: 4 }, () => payloadOf(1_000_000))
  for (const payload of payloads) await accepting.accept([push({ group: 'crowd' }, { payload })])
  const web = await ground().web()
  const listens = await Promise.all(
    phones.map((phone) =>
      web.open({ listeners: [{ device: phone, generation: undefined }], after: undefined }),
    ),
  )
  const answers = listens.map((listen) => listen.next(30_000))
  let answered = 0
  for (const answer of answers) void answer.then(() => (answered += 1))
  // 64 MiB of room for 80 MB of payloads.
  await eventually(() => expect(answered).toBe(16))
  await new Promise((resolve) => setTimeout(resolve, 300))
  expect(answered).toBe(16)
  for (const [index, answer] of answers.entries()) {
    const { given } = (await answer) as { given: { notification: Notification }[] }
    expect(given.map(({ notification }) => notification.payload)).toEqual(payloads)
    listens[index]?.close()
  }
}, 60_000)

it('fetches of a pile of payloads that stayed in their rows no more than an answer needs', async () => {
  const { device, acceptance, push } = ground()
  const phone = await device()
  const accepting = acceptance()
  // So that the stores are known: places that nobody has used yet would be taken for new ones.
  await accepting.accept([push(await device(), { payload: payloadOf(20_000) })])
  const bringBack = await takeAwayStores()
  const pushes = Array.from({ length: 8 }, () => push(phone, { payload: payloadOf(300_000) }))
  for (const each of pushes) await accepting.accept([each])
  await bringBack()
  const listen = await open(phone)
  const found: Notification[] = []
  const sizes: number[] = []
  for (let more = await given(listen); more.length > 0; more = await given(listen)) {
    sizes.push(more.length)
    found.push(...more)
  }
  expect(found.map(({ id }) => id)).toEqual(pushes.map(({ id }) => id))
  expect(found.every(({ payload }, index) => payload === pushes[index]?.payload)).toBe(true)
  expect(sizes).toEqual([4, 4])
}, 40_000)

/** Bytes of payloads in the answers of Postgres to these statements, one number for each of them. */
function watchPayloads(...names: string[]): () => Promise<number[]> {
  const asked = vi.spyOn(ground().postgres, 'query')
  onTestFinished(() => asked.mockRestore())
  const bytesOf = async (index: number): Promise<number> => {
    const answer = (await asked.mock.results[index]?.value) as
      | { rows: { payload: string | null }[] }
      | undefined
    return (answer?.rows ?? []).reduce((sum, { payload }) => sum + Buffer.byteLength(payload ?? ''), 0)
  }
  return async () =>
    Promise.all(
      asked.mock.calls.flatMap(([sql], index) =>
        typeof sql === 'object' && names.includes(sql.name ?? '') ? [bytesOf(index)] : [],
      ),
    )
}

describe('payloads that stayed in the rows of many devices', () => {
  const count = 40
  const accept = async (makePayload: (index: number) => string, more: Partial<NewPush> = {}) => {
    const { device, acceptance, push } = ground()
    const accepting = acceptance()
    await accepting.accept([push(await device(), { payload: payloadOf(20_000) })])
    const bringBack = await takeAwayStores()
    const pushes: NewPush[] = []
    for (let index = 0; index < count; index++) {
      pushes.push(push(await device(), { payload: makePayload(index), ...more }))
    }
    for (let from = 0; from < count; from += 8) {
      await Promise.all(pushes.slice(from, from + 8).map((each) => accepting.accept([each])))
    }
    await bringBack()
    return pushes
  }
  const listenAll = async (pushes: NewPush[]) => {
    const web = await ground().web()
    const listens = await Promise.all(
      pushes.map(({ to }) => {
        const listeners = [{ device: 'device' in to ? to.device : '', generation: undefined }]
        return web.open({ listeners, after: undefined })
      }),
    )
    const found = await Promise.all(
      listens.map(async (listen) => {
        const notifications = await given(listen, 20_000)
        listen.close()
        return notifications.map(({ payload }) => payload)
      }),
    )
    return found
  }

  it('come in statements of a bounded size when all of them listen at once', async () => {
    const pushes = await accept(() => payloadOf(600_000))
    const carried = watchPayloads('push-fetch', 'push-stored')
    expect(await listenAll(pushes)).toEqual(pushes.map(({ payload }) => [payload]))
    expect(Math.max(...(await carried()))).toBeLessThan(10_000_000)
  }, 60_000)

  it('do so however small they are on the disk', async () => {
    const pushes = await accept((index) => `"${index}${'x'.repeat(900_000)}"`)
    const carried = watchPayloads('push-fetch', 'push-stored')
    expect(await listenAll(pushes)).toEqual(pushes.map(({ payload }) => [payload]))
    expect(Math.max(...(await carried()))).toBeLessThan(10_000_000)
  }, 60_000)

  it('are not read for cloud pushes that have no room for them', async () => {
    await ground().postgres.query('DELETE FROM pushes')
    await accept(() => payloadOf(600_000), { confirmMs: 0 })
    const carried = watchPayloads('push-claim')
    const sender = ground().worker()
    await eventually(async () => {
      await sender.fire(allShards)
      expect(sender.stub.sent).toHaveLength(count)
    })
    expect(sender.stub.sent.map(({ message }) => message.push.truncated)).toEqual(Array(count).fill(true))
    expect(Math.max(...(await carried()))).toBe(0)
  }, 60_000)
})

it('reads many small ones of a device in order, some of them with its next answers', async () => {
  const { device, acceptance, push } = ground()
  const phone = await device()
  const pushes = Array.from({ length: 130 }, () => push(phone, { payload: payloadOf(12_000) }))
  await acceptance().accept(pushes)
  const listen = await open(phone)
  const found: Notification[] = []
  for (let more = await given(listen); more.length > 0; more = await given(listen)) found.push(...more)
  expect(found.map(({ id, payload }) => [id, payload])).toEqual(
    pushes.map(({ id, payload }) => [id, payload]),
  )
})

it('puts away once what many pushes of a request have in common', async () => {
  const stored: string[] = []
  const store: PayloadStore = {
    store: async (json) => {
      stored.push(json)
      return 'a'.repeat(64)
    },
    load: async () => '',
  }
  const clock = createSystemClock()
  const payloads = createPushPayloads({ store, clock, log: createLog({ level: 'silent', process: 'test' }) })
  const payload = payloadOf(17_000)
  const same = Array.from({ length: 30 }, () => ground().push('phone', { payload }))
  const claimed = await payloads.claim([...same, ground().push('phone', { payload: payloadOf(17_000) })])
  expect(stored).toHaveLength(2)
  expect(new Set(claimed.slice(0, 30).map((each) => each.payload)).size).toBe(1)
})

it('refuses in words for senders one that looks like a claim while the stores are away', async () => {
  const { device, acceptance, push } = ground()
  const phone = await device()
  await takeAwayStores()
  const alike = push(phone, { payload: '{"baton:payload":1}' })
  const refusal = await acceptance()
    .accept([alike])
    .catch((error: unknown) => error)
  expect(refusal).toSatisfy(PUSH_PAYLOAD_UNAVAILABLE.is)
  expect(String(refusal)).not.toContain('job')
})

import { randomUUID } from 'node:crypto'
import { expect, it } from 'vitest'
import { codeOf } from '../../../src/core/errors.ts'
import { discard } from '../../../src/domain/sync/trash.ts'
import { createTrashBin, type TrashBin } from '../../../src/domain/sync/trash-bin.ts'
import { createFiveTypes, putDevices, putJobs, putPushes, putStates } from './five-types.ts'
import { contentOf, openReplayPair, openSite, type WebSite } from './replay-pair.ts'
import { putThing } from './things.ts'

const binOf = ({ sending }: WebSite): TrashBin => createTrashBin(sending)
const codeFrom = (work: Promise<unknown>): Promise<string | undefined> => work.then(() => 'done', codeOf)

/** Into the trash, as what is applied does it. */
async function throwAway({ types, postgres }: WebSite, name: string, id: string): Promise<void> {
  const type = types.find((each) => each.type === name)
  const image = (await type?.read([id], postgres))?.get(id)
  if (!type || !image) throw new Error(`there is no ${name} ${id}`)
  await discard(type, { id, reason: 'conflict', content: image.content, epoch: 1 }, postgres)
}

it('lists without contents, the newest first, and shows one with its content', async () => {
  const site = await openSite('a')
  const bin = binOf(site)
  for (const id of ['one', 'two']) {
    await putThing(site.postgres, id, 'secret')
    await throwAway(site, 'thing', id)
  }
  const listed = await bin.list({})
  expect(listed).toMatchObject([
    { n: 2, type: 'thing', id: 'two', reason: 'conflict', size: 29 },
    { n: 1, type: 'thing', id: 'one' },
  ])
  expect(JSON.stringify(listed)).not.toContain('secret')
  expect(await bin.list({ limit: 1 })).toHaveLength(1)
  expect(await bin.list({ reason: 'deleted' })).toEqual([])
  expect(await bin.list({ type: 'job' })).toEqual([])
  expect(await bin.show(1)).toMatchObject({ content: '{"id":"one","value":"secret"}', parts: [] })
  expect(await codeFrom(bin.show(3))).toBe('TRASH_NOT_FOUND')
  expect(await codeFrom(bin.restore(3, { replace: true }))).toBe('TRASH_NOT_FOUND')
})

it('restores as a change that goes to the replicas; what is there now goes to the trash, and only when that is said', async () => {
  const pair = await openReplayPair()
  const { leader, replica } = pair
  const bin = binOf(leader)
  await putThing(leader.postgres, 'one', 'old')
  await throwAway(leader, 'thing', 'one')
  expect(await bin.restore(1, { replace: false })).toMatchObject({ state: 'current', replaced: false })
  await putThing(leader.postgres, 'one', 'new')
  await pair.settle()
  expect(await codeFrom(bin.restore(1, { replace: false }))).toBe('TRASH_OCCUPIED')
  expect((await contentOf(leader)).get('thing one')).toContain('new')
  expect(await bin.restore(1, { replace: true })).toEqual({
    n: 1,
    type: 'thing',
    id: 'one',
    state: 'restored',
    replaced: true,
  })
  expect(await bin.show(2)).toMatchObject({ reason: 'replaced', content: '{"id":"one","value":"new"}' })
  await pair.settle()
  expect((await contentOf(replica)).get('thing one')).toContain('old')
  await leader.postgres.query('DELETE FROM things')
  expect(await bin.restore(2, { replace: false })).toMatchObject({ state: 'restored', replaced: false })
  await pair.settle()
  expect((await contentOf(replica)).get('thing one')).toContain('new')

  await throwAway(replica, 'thing', 'one')
  expect(await codeFrom(binOf(replica).restore(1, { replace: true }))).toBe('SITE_IS_REPLICA')
  await leader.sending.site.close(5_000)
  expect(await codeFrom(bin.restore(1, { replace: true }))).toBe('SITE_CLOSED')
  expect((await contentOf(leader)).get('thing one')).toContain('new')
}, 20_000)

it('writes back over nothing that somebody changes meanwhile', async () => {
  const site = await openSite('a')
  const bin = binOf(site)
  await putThing(site.postgres, 'one', 'old')
  await throwAway(site, 'thing', 'one')
  await putThing(site.postgres, 'one', 'new')
  const { promise, resolve } = Promise.withResolvers<void>()
  const writing = site.postgres.transaction(async (client) => {
    await putThing(client, 'one', 'newest')
    await promise
  })
  const restoring = bin.restore(1, { replace: true })
  await expect
    .poll(
      async () =>
        (await site.postgres.query("SELECT FROM pg_stat_activity WHERE wait_event = 'transactionid'"))
          .rowCount,
      { timeout: 10_000 },
    )
    .toBeGreaterThan(0)
  resolve()
  await writing
  expect(await restoring).toMatchObject({ state: 'restored', replaced: true })
  const [entry, ...others] = await bin.list({ reason: 'replaced' })
  expect(others).toEqual([])
  expect((await bin.show(entry?.n ?? 0)).content).toContain('newest')
}, 20_000)

it('restores states with their bytes, devices, pushes and jobs on a site that is alone', async () => {
  const site = await openSite('a', createFiveTypes(new Map()))
  const { postgres } = site
  await putStates(postgres, 'phone', 2)
  await putDevices(postgres, 1, 'd')
  await putPushes(postgres, 1, 'd1')
  await putJobs(postgres, 1)
  const before = await contentOf(site)
  expect(before.size).toBe(4)
  for (const key of before.keys()) {
    const at = key.indexOf(' ')
    await throwAway(site, key.slice(0, at), key.slice(at + 1))
  }
  await postgres.query('DELETE FROM states')
  for (const table of ['pushes', 'devices', 'jobs']) await postgres.query(`DELETE FROM ${table}`)
  const bin = binOf(site)
  for (const { n } of await bin.list({})) {
    expect(await bin.restore(n, { replace: false })).toMatchObject({ state: 'restored', replaced: false })
  }
  expect(await contentOf(site)).toEqual(before)
})

it('says why something cannot be written back', async () => {
  const site = await openSite('a', createFiveTypes(new Map()))
  const id = randomUUID()
  await site.postgres.query(
    `INSERT INTO sync_trash (type, id, reason, content, epoch) VALUES ('states', 'phone', 'conflict', $1, 1)`,
    [
      JSON.stringify({
        device: 'phone',
        states: [
          {
            uuid: id,
            type: '',
            counter: '1',
            sha256: 'a'.repeat(64),
            size: 1,
            updatedAt: '2026-01-01T00:00:00Z',
          },
        ],
        users: [],
      }),
    ],
  )
  await expect(binOf(site).restore(1, { replace: false })).rejects.toMatchObject({
    code: 'TRASH_NOT_RESTORED',
    message: expect.stringContaining('phone'),
  })
})

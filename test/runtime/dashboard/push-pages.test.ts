import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { newId } from '../../../src/core/ids.ts'
import { createPushes } from '../../../src/domain/push/delivery-log.ts'
import { createPushInspection } from '../../../src/domain/push/inspection.ts'
import { shardOf } from '../../../src/domain/push/shard.ts'
import { createDevicesPage } from '../../../src/runtime/dashboard/pages/devices.ts'
import { createPushPage } from '../../../src/runtime/dashboard/pages/push.ts'
import { createPushesPage } from '../../../src/runtime/dashboard/pages/pushes.ts'
import { testDatabase, testRedis } from '../../support/databases.ts'
import { eventually } from '../../support/processes.ts'
import { type Browser, type DashboardHarness, environmentKeys, startDashboard } from './dashboard-harness.ts'

const evil = `"><img src=x onerror=alert(1)><script>alert(2)</script>'/../%2F`

let dashboard: DashboardHarness
let operator: Browser
let viewer: Browser
let timeMs = Date.now()

beforeAll(async () => {
  const [{ url }, redis] = await Promise.all([testDatabase(), testRedis()])
  dashboard = await startDashboard({
    databaseUrl: url,
    engine: { kind: 'redis', ...redis },
    pagesOf: ({ postgres, clock, audit }) => {
      const inspection = createPushInspection(postgres)
      return [
        createPushesPage({ clock, inspection, listens: () => 7 }),
        createPushPage({ inspection, pushes: createPushes(postgres), audit }),
        createDevicesPage({ inspection, flood: { intervalMs: 60_000, burst: 3 } }),
      ]
    },
  })
  operator = await dashboard.logIn(environmentKeys.operator)
  viewer = await dashboard.logIn(environmentKeys.viewer)
})
afterAll(() => dashboard.close())

const query = (sql: string, values: unknown[] = []): Promise<unknown> => dashboard.postgres.query(sql, values)
const clear = async (): Promise<void> =>
  void (await query('TRUNCATE pushes, transports, device_groups, devices'))

const addDevice = async (device: string, user: string | null = null): Promise<string> => {
  await query('INSERT INTO devices (id, shard, user_id) VALUES ($1, $2, $3)', [device, shardOf(device), user])
  return device
}
const addTransport = (
  device: string,
  position: number,
  [kind, address]: [string, string],
): Promise<unknown> =>
  query(
    `INSERT INTO transports (device, position, kind, address, options) VALUES ($1, $2, $3, $4, '{"auth":"the-secret-key"}')`,
    [device, position, kind, address],
  )

interface Seed {
  id: string
  state: string
  /** ms from now; an hour unless said. */
  dueInMs: number
  payload: string
}

const closedStates = ['confirmed', 'expired', 'withdrawn', 'replaced']

const addPush = async (device: string, seed: Partial<Seed> = {}): Promise<string> => {
  const {
    id = newId(timeMs++),
    state = 'pending',
    dueInMs = 3_600_000,
    payload = '{"text":"a secret text"}',
  } = seed
  const claimed = { name: 'claimed', at: Date.now() + 61_000, transport: 'webpush', sendId: 'the-send' }
  const log = JSON.stringify([claimed])
  await query(
    `INSERT INTO pushes (id, device, shard, state, priority, payload, expires_at, due_at, closed_at, log)
     VALUES ($1, $2, $3, $4, true, $5, now() + interval '1 day', now() + $6 * interval '1 ms', $7,
       $8)`,
    [
      id,
      device,
      shardOf(device),
      state,
      payload,
      dueInMs,
      closedStates.includes(state) ? new Date() : null,
      log,
    ],
  )
  return id
}

const idsOn = (page: string): string[] =>
  [...page.matchAll(/class="id" href="\/dashboard\/pushes\/([0-9a-f-]{36})/g)].map((each) => each[1] ?? '')
const nextOn = (page: string): string | undefined =>
  /<a href="([^"]+)">Next page/.exec(page)?.[1]?.replaceAll('&amp;', '&')
const rowOf = (page: string, about: string): string =>
  page.split('<tr').find((each) => each.includes(about)) ?? ''

describe('the page of pushes', () => {
  it('says in words that there is nothing yet', async () => {
    await clear()
    const page = await eventually(async () => {
      const shown = await viewer.page('/dashboard/pushes')
      expect(shown).toContain('No push has been accepted yet')
      return shown
    })
    expect(page).toContain('No push matches')
    expect(page).toContain('No device has a transport')
    expect(page).toContain('none: the workers keep up')
    expect(await viewer.page('/dashboard/devices')).toContain('No device is registered')
    expect(await viewer.page('/dashboard')).toMatch(
      /href="\/dashboard\/pushes">Pushes<\/a><\/dt><dd>.*nothing is overdue/s,
    )
  })

  it('counts what is open by state, what became of the newest, and transports that are dead', async () => {
    await clear()
    const device = await addDevice('phone')
    await addTransport(device, 0, ['webpush', 'https://push.example.org/secret-path'])
    await addTransport(device, 1, ['webpush', 'https://push.example.org/other'])
    await query(`UPDATE transports SET dead_at = now() WHERE position = 1`)
    for (const state of ['pending', 'pending', 'sent', 'undeliverable', 'confirmed', 'expired'])
      await addPush(device, { state })
    const page = await eventually(async () => {
      const shown = await viewer.page('/dashboard/pushes')
      expect(shown).toMatch(/Open in all<\/span>\s*<span class="tile-figure">4</)
      return shown
    })
    const tile = (state: string): string | undefined =>
      new RegExp(`state=${state}">.*?tile-figure">([^<]+)<`, 's').exec(page)?.[1]
    expect([tile('pending'), tile('sent'), tile('undeliverable'), tile('sending')]).toEqual([
      '2',
      '1',
      '1',
      '0',
    ])
    expect(page).toContain('What became of the newest 6')
    expect(page).toMatch(/confirmed<\/span> 1 <span class="help">17 %/)
    expect(page).toMatch(/6 in the last minute/)
    expect(rowOf(page, 'data-label="Kind">webpush')).toMatch(/Alive">1<.*Dead">1</s)
    expect(page).toMatch(/7 open .*in this web process/)
  })

  it('names what is overdue, the oldest first, here and on the overview', async () => {
    await clear()
    const device = await addDevice('phone')
    await addPush(device)
    const late = await addPush(device, { state: 'due', dueInMs: -90_000 })
    const later = await addPush(await addDevice('other'), { dueInMs: -180_000 })
    const page = await viewer.page('/dashboard/pushes?state=overdue')
    expect(idsOn(page)).toEqual([later, late])
    await eventually(async () => {
      expect(await viewer.page('/dashboard/pushes')).toMatch(/overdue<\/span>.*2 due, the oldest for 3 min/s)
      expect(await viewer.page('/dashboard')).toMatch(
        /Pushes<\/a><\/dt><dd>.*overdue<\/span> 2 due, the oldest for 3 min/s,
      )
    })
  })

  it('leads from page to page, each push on one of them, also when few of many match', async () => {
    await clear()
    const device = await addDevice('phone')
    const all: string[] = []
    for (let index = 0; index < 120; index++)
      all.push(await addPush(device, { state: index % 60 === 0 ? 'undeliverable' : 'sent' }))
    const seen: string[] = []
    for (let path: string | undefined = '/dashboard/pushes'; path; ) {
      const page: string = await viewer.page(path)
      seen.push(...idsOn(page))
      path = nextOn(page)
      expect(seen.length).toBeLessThan(200)
    }
    expect(seen).toEqual(all.toReversed())
    expect(idsOn(await viewer.page('/dashboard/pushes?state=undeliverable'))).toEqual([all[60], all[0]])
    expect(await viewer.page('/dashboard/pushes?state=replaced')).toContain('No push matches')
  })

  it('goes to a push or a device that is asked for, and says when there is none', async () => {
    await clear()
    const device = await addDevice('a/b c')
    const id = await addPush(device)
    const to = async (path: string): Promise<string | null> =>
      (await viewer.get(path)).headers.get('location')
    expect(await to(`/dashboard/pushes?id=${id}`)).toBe(`/dashboard/pushes/${id}`)
    expect(await to('/dashboard/pushes?device=a%2Fb+c')).toBe('/dashboard/devices/a%2Fb%20c')
    for (const search of ['id=nonsense', 'device=nobody', 'device=%00%ED%A0%80']) {
      const elsewhere = await to(`/dashboard/pushes?${search}`)
      expect(await viewer.page(elsewhere ?? '')).toMatch(/not the id of a push|No device of that id/)
    }
    for (const cursor of ['x', `${id}.`, `${id}.AA`, '%00'])
      expect((await viewer.get(`/dashboard/pushes?cursor=${cursor}`)).status).toBe(200)
  })

  it('counts no further than is cheap', async () => {
    await clear()
    await query(
      `INSERT INTO pushes (id, device, shard, state, priority, expires_at, due_at)
       SELECT gen_random_uuid(), 'd' || i, i % 64, 'pending', true, now() + interval '1 day', now() - interval '1 hour'
         FROM generate_series(1, 10500) AS i`,
    )
    await eventually(async () => {
      const page = await viewer.page('/dashboard/pushes')
      expect(page).toMatch(/≥ 10,000<\/span> due, the oldest for 1 h/)
      expect(page).toMatch(/Open in all<\/span>\s*<span class="tile-figure"><span title="an estimate">≈ 10,/)
    })
  })
})

describe('the page of a push', () => {
  it('shows state and milestones of each device, page by page, and of the payload its size', async () => {
    await clear()
    const id = newId(timeMs++)
    const names = Array.from({ length: 60 }, (_none, index) => `phone-${String(index).padStart(2, '0')}`)
    for (const name of names)
      await addPush(await addDevice(name), { id, state: name === 'phone-07' ? 'sent' : 'pending' })
    const page = await viewer.page(`/dashboard/pushes/${id}`)
    expect(page).toMatch(/pending<\/span> 59.*sent<\/span> 1/s)
    expect(rowOf(page, 'phone-07')).toMatch(
      /sent<\/span>.*accepted<.*\+1 min.*claimed <span class="help">sendId the-send, transport webpush/s,
    )
    expect(page).toMatch(/Payload<\/dt><dd>24 B/)
    expect(page).not.toContain('a secret text')
    expect(page).not.toContain('phone-50')
    const next = await viewer.page(nextOn(page) ?? '')
    expect([...next.matchAll(/devices\/(phone-\d\d)"/g)].map((each) => each[1])).toEqual(names.slice(50))
    const one = await viewer.page(`/dashboard/pushes/${id}?device=phone-07`)
    expect([...one.matchAll(/devices\/(phone-\d\d)"/g)].map((each) => each[1])).toEqual(['phone-07'])
    expect(await operator.page(`/dashboard/pushes/${id}`)).toContain('a secret text')
  })

  it('is 404 for an id that is none, or of no push', async () => {
    for (const id of [newId(timeMs), 'nonsense', encodeURIComponent(evil)]) {
      const answer = await viewer.get(`/dashboard/pushes/${id}`)
      expect(answer.status).toBe(404)
      expect(await answer.text()).toContain('PUSH_NOT_FOUND')
      expect((await operator.post(`/dashboard/pushes/${id}/withdraw`)).status).toBe(404)
    }
  })

  it('lets an operator withdraw what no provider was given, and writes that down', async () => {
    await clear()
    const id = await addPush(await addDevice('one'))
    await addPush(await addDevice('two'), { id, state: 'sent' })
    expect(await operator.page(`/dashboard/pushes/${id}`)).toContain('taken back for 1 of its devices')
    const answer = await operator.post(`/dashboard/pushes/${id}/withdraw`)
    expect(answer.status).toBe(303)
    const page = await operator.page(answer.headers.get('location') ?? '')
    expect(page).toContain('1 × The push is withdrawn')
    expect(page).toMatch(/withdrawn<\/span> 1/)
    expect(page).toContain('push.withdraw')
    const [entry] = await dashboard.audit.list({ limit: 1, subject: id })
    expect(entry).toMatchObject({
      action: 'push.withdraw',
      actor: 'BATON_API_KEYS operator',
      details: { from: 'dashboard' },
    })
    expect(await operator.page('/dashboard/audit')).toContain(`/dashboard/pushes/${id}`)
    const again = await operator.post(`/dashboard/pushes/${id}/withdraw`)
    expect(again.headers.get('location')).toContain('nothing-open')
  })

  it('shows a viewer no button, and refuses one who sends the form all the same', async () => {
    await clear()
    const id = await addPush(await addDevice('one'))
    const page = await viewer.page(`/dashboard/pushes/${id}`)
    expect(page).not.toContain('/withdraw')
    expect((await viewer.post(`/dashboard/pushes/${id}/withdraw`)).status).toBe(403)
    expect((await operator.post(`/dashboard/pushes/${id}/withdraw`, { token: 'another' })).status).toBe(403)
    expect(await dashboard.audit.list({ limit: 5, subject: id })).toEqual([])
    expect(await viewer.page(`/dashboard/pushes/${id}`)).toMatch(/pending<\/span> 1/)
  })
})

describe('the page of a device', () => {
  it('tells how it is reached without a key, a token or an address', async () => {
    await clear()
    const device = await addDevice('phone', 'anna')
    await addTransport(device, 0, ['webpush', 'https://push.example.org:8443/wpush/secret-path'])
    await addTransport(device, 1, ['fcm', 'secret-token'])
    await query(
      `UPDATE transports SET dead_at = now() - interval '2 hours', dead_reason = '410' WHERE position = 1`,
    )
    await query(`INSERT INTO device_groups (device, group_id) VALUES ('phone', 'staff')`)
    await query(
      `UPDATE devices SET reconnect_ms = 4000, seen_at = now() - interval '5 minutes', flood_at = now() + interval '70 seconds'`,
    )
    const open = await addPush(device, { state: 'due' })
    const closed = await addPush(device, { state: 'confirmed' })
    await addPush(await addDevice('other'), { state: 'confirmed' })
    const page = await viewer.page('/dashboard/devices/phone')
    expect(rowOf(page, 'data-label="Kind">webpush')).toMatch(
      /alive<\/span>.*Origin">https:\/\/push\.example\.org:8443</s,
    )
    expect(rowOf(page, 'data-label="Kind">fcm')).toMatch(/dead<\/span>.*Origin">–<.*>2 h ago<.*410/s)
    expect(page).not.toMatch(/secret/)
    expect(page).toMatch(/Waits for a confirmation<\/dt><dd>8\.0 s/)
    expect(page).toMatch(/free<\/span> 1 of 3 cloud pushes may go at once/)
    expect(page).toMatch(/Last seen<\/dt><dd><time[^>]*>5 min ago/)
    expect(page).toMatch(/Groups<\/dt><dd>staff/)
    expect(idsOn(page)).toEqual([open, closed])
    await query(`UPDATE devices SET flood_at = now() + interval '150 seconds' WHERE id = 'phone'`)
    expect(await viewer.page('/dashboard/devices/phone')).toMatch(
      /held<\/span> the next cloud push may go in (2[0-9]|30) s/,
    )
    const list = await viewer.page('/dashboard/devices?user=anna')
    expect(rowOf(list, 'devices/phone"')).toMatch(/webpush, fcm .*dead<\/span>.*Open pushes">1</s)
    expect(list).not.toContain('devices/other')
    expect(await viewer.page('/dashboard/devices?user=nobody')).toContain('No device of this user')
    expect((await viewer.get('/dashboard/devices/nobody')).status).toBe(404)
  })

  it('leads through many devices page by page', async () => {
    await clear()
    await query(
      `INSERT INTO devices (id, shard) SELECT 'd' || lpad(i::text, 3, '0'), 0 FROM generate_series(1, 70) AS i`,
    )
    const first = await viewer.page('/dashboard/devices')
    const second = await viewer.page(nextOn(first) ?? '')
    const seen = [first, second].flatMap((page) =>
      [...page.matchAll(/devices\/(d\d\d\d)"/g)].map((each) => each[1]),
    )
    expect(new Set(seen).size).toBe(70)
    expect(nextOn(second)).toBeUndefined()
  })
})

describe('ids and texts from outside', () => {
  it('are text on every page', async () => {
    await clear()
    await addDevice(evil, evil)
    await addTransport(evil, 0, [evil, evil])
    await query('UPDATE transports SET dead_at = now(), dead_reason = $1', [evil])
    await query('INSERT INTO device_groups (device, group_id) VALUES ($1, $1)', [evil])
    const id = await addPush(evil, { payload: JSON.stringify({ [evil]: evil }) })
    await query('UPDATE pushes SET topic = $1, log = $2', [
      evil,
      JSON.stringify([{ name: evil, at: 1, reason: evil }]),
    ])
    await dashboard.audit.record({ actor: evil, action: evil, subject: id })
    const coded = encodeURIComponent(evil)
    const paths = [
      'pushes',
      `pushes/${id}`,
      `pushes/${id}?device=${coded}`,
      `devices/${coded}`,
      'devices',
      `devices?user=${coded}`,
      '',
    ]
    for (const path of [...paths, `pushes?state=${coded}`, `pushes?notice=${coded}`]) {
      for (const browser of [operator, viewer]) {
        const page = await browser.page(`/dashboard/${path}`)
        expect(page).not.toContain('<img')
        expect(page).not.toMatch(/<script(?![^>]* src=")/)
      }
    }
    // What was escaped was there, and the link leads to it.
    const list = await viewer.page('/dashboard/pushes')
    expect(list).toContain('&lt;script&gt;alert(2)&lt;/script&gt;')
    const href = /href="(\/dashboard\/devices\/[^"]+)"/.exec(list)?.[1]?.replaceAll('&#39;', "'") ?? ''
    expect(await viewer.page(href)).toContain('Device &quot;&gt;&lt;img')
  })
})

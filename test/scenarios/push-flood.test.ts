import { setTimeout as pause } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { eventually } from '../support/processes.ts'
import { type Heard, openPushSite } from '../support/push-site.ts'

const burst = 3
const intervalMs = 2_000
const total = 10_000

test('10,000 pushes to one device from four nodes at once become as few cloud pushes as the limit allows', async () => {
  const site = await openPushSite('redis', {
    FLOOD_BURST: String(burst),
    FLOOD_INTERVAL_MS: String(intervalMs),
  })
  const nodes = await Promise.all([site.startWeb(), site.startWeb(), site.startWeb(), site.startWeb()])
  await Promise.all([site.startWorker(), site.startWorker()])
  const [device = ''] = await site.devices(1)

  const startedAt = performance.now()
  const ids = new Set<string>()
  await Promise.all(
    nodes.map(async (node) => {
      for (let sent = 0; sent < total / nodes.length; sent += 50) {
        const body = Array.from({ length: 50 }, (_none, n) => ({
          to: { device },
          confirmMs: 0,
          payload: { n },
        }))
        const answer = await node.call('POST', '/v1/pushes', { body })
        expect(answer.status).toBe(202)
        for (const { id } of answer.json<{ pushes: { id: string }[] }>().pushes) ids.add(id)
      }
    }),
  )
  expect(ids.size).toBe(total)
  const acceptedMs = performance.now() - startedAt
  await eventually(
    async () => {
      const states = await site.query('SELECT state, count(*)::int AS n FROM pushes GROUP BY state')
      expect(states).toEqual([{ state: 'sent', n: total }])
    },
    { timeoutMs: 30_000, everyMs: 100 },
  )
  const { received } = site.cloud
  const times = received.map((each) => each.at)
  const collapsed = received.map(
    (each) => (JSON.parse(each.body.toString()) as { data: { count?: number } }).data.count ?? 1,
  )
  console.log(
    `${total} pushes in ${acceptedMs.toFixed(0)} ms: ${received.length} cloud pushes, collapsed ${collapsed.join(', ')}, at ${times.map((at) => (at - startedAt).toFixed(0)).join(', ')} ms`,
  )
  const claims = await site.query<{ at: number }>(
    `SELECT min((m ->> 'at')::float8) AS at FROM pushes, jsonb_array_elements(log) AS m
      WHERE m ->> 'name' = 'claimed' GROUP BY m ->> 'sendId' ORDER BY at`,
  )
  expect(claims).toHaveLength(received.length)
  // As Postgres decided it, to the rounding of its milliseconds.
  const decided = claims.map(({ at }) => at)
  expectWithinLimit(decided, 1)
  // And as the device would see it. The way takes some milliseconds; the first one also opens the connection.
  expectWithinLimit(times, intervalMs / 4)
  expect(collapsed.reduce((sum, each) => sum + each, 0)).toBe(total)
  await pause(intervalMs * 2)
  expect(site.cloud.received).toHaveLength(received.length)

  // Everything comes with the next listens.
  const heard = new Set<string>()
  let after = ''
  while (heard.size < total) {
    const answer = await nodes[0].call('GET', `/v1/listen?device=${device}&waitMs=0${after}`)
    expect(answer.status).toBe(200)
    const { cursor, notifications } = answer.json<Heard>()
    for (const { id } of notifications) heard.add(id)
    after = `&after=${cursor}`
  }
  expect(heard).toEqual(ids)
})

/** In every window: never more than the burst and one for each interval that has begun. */
function expectWithinLimit(times: number[], toleranceMs: number): void {
  for (const [index, from] of times.entries()) {
    for (let until = index; until < times.length; until += 1) {
      const windowMs = (times[until] ?? 0) - from + toleranceMs
      expect(until - index + 1).toBeLessThanOrEqual(burst + Math.floor(windowMs / intervalMs))
    }
  }
}

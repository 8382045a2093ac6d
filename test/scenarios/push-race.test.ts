import { setTimeout as pause } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { eventually } from '../support/processes.ts'
import { type Heard, openPushSite, type PushSite, type WebNode } from '../support/push-site.ts'

const trials = 2_000
const batch = 200

// Confirms are aimed at the very time in which alarms fire and claims run.
test.each(['redis', 'postgres'] as const)(
  '2,000 confirms against their own alarms: never lost, never sent after a confirm: %s',
  async (engine) => {
    const site = await openPushSite(engine, { FLOOD_BURST: '1000', FLOOD_INTERVAL_MS: '1' })
    const [web] = await Promise.all([site.startWeb(), site.startWorker(), site.startWorker()])
    const devices = await site.devices(batch)
    const answered = new Map<string, number>()
    // How long after the end of the timeout the confirms come in the middle, and how long that timeout is: where the
    // claims fall depends upon the machine, so each round aims better than the one before.
    let aimMs = 200
    let confirmMs = 600
    for (let round = 0; round < trials / batch; round += 1) {
      // Everybody has got it, and nobody has confirmed it; then all confirm around the end of its timeout.
      const body = devices.map((device) => ({ to: { device }, confirmMs }))
      const accepted = await web.call('POST', '/v1/pushes', { body })
      const sentAt = performance.now()
      const ids = accepted.json<{ pushes: { id: string }[] }>().pushes.map((each) => each.id)
      await Promise.all(
        devices.map(async (device, index) => {
          const answer = await listen(web, device, '')
          const { cursor, notifications } = answer.json<Heard>()
          expect(notifications.map((each) => each.id)).toEqual([ids[index]])
          const confirmAt = sentAt + confirmMs + aimMs + (Math.random() - 0.5) * 400
          await pause(Math.max(0, confirmAt - performance.now()))
          await listen(web, device, `&after=${cursor}`)
          answered.set(ids[index] ?? '', Date.now())
        }),
      )
      await eventually(
        async () => {
          const [row] = await site.query(
            `SELECT count(*)::int AS n FROM pushes WHERE state IN ('pending', 'delivered', 'due', 'sending')`,
          )
          expect(row).toEqual({ n: 0 })
        },
        { timeoutMs: 30_000 },
      )
      const share = (await claimedOf(site, ids)) / batch
      if (share < 0.25) aimMs += 150
      if (share > 0.75) {
        aimMs -= 100
        // Also when the listens took longer than the timeout.
        confirmMs += 200
      }
    }
    await pause(500)
    const rows = await site.query<{ id: string; state: string; claimed: string | null }>(
      `SELECT id::text, state, (SELECT min((m ->> 'at')::bigint) FROM jsonb_array_elements(log) AS m WHERE m ->> 'name' = 'claimed')::text AS claimed
       FROM pushes`,
    )
    expect(rows).toHaveLength(trials)
    const reached = new Set(
      site.cloud.received.map(
        (each) => (JSON.parse(each.body.toString()) as { data: { id: string } }).data.id,
      ),
    )
    const late = rows.filter(
      ({ id, claimed }) => claimed !== null && Number(claimed) > (answered.get(id) ?? 0),
    )
    const unclaimed = rows.filter(({ claimed }) => claimed === null)
    console.log(
      `${engine}: ${trials} trials: ${unclaimed.length} confirmed before the claim, ${rows.length - unclaimed.length} claimed before the confirm`,
    )
    expect(late).toEqual([])
    expect(unclaimed.filter(({ id, state }) => reached.has(id) || state !== 'confirmed')).toEqual([])
    expect(rows.filter(({ id, state }) => state !== 'confirmed' && !reached.has(id))).toEqual([])
    // Both outcomes were met often: the confirms did fall upon the claims.
    expect(Math.min(unclaimed.length, trials - unclaimed.length)).toBeGreaterThan(trials / 20)
  },
)

async function claimedOf(site: PushSite, ids: string[]): Promise<number> {
  const [row] = await site.query<{ n: number }>(
    `SELECT count(*)::int AS n FROM pushes WHERE id = ANY ($1::uuid[]) AND log @> '[{"name": "claimed"}]'`,
    [ids],
  )
  return row?.n ?? 0
}

const listen = (web: WebNode, device: string, after: string) =>
  web.call('GET', `/v1/listen?device=${device}&waitMs=0${after}`)

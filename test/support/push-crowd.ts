import { expect } from 'vitest'
import { eventually } from './processes.ts'
import type { PushSite, WebNode } from './push-site.ts'

/** A push to each of the devices, a thousand in a request. */
export const sendToAll = async (web: WebNode, devices: string[], confirmMs: number): Promise<void> => {
  for (let from = 0; from < devices.length; from += 1_000) {
    const body = devices.slice(from, from + 1_000).map((device) => ({ to: { device }, confirmMs }))
    expect((await web.call('POST', '/v1/pushes', { body })).status).toBe(202)
  }
}

/** How long after `sinceMs` the last of them came, and whether each device got its own. */
export async function allCloudPushes(site: PushSite, devices: string[], sinceMs: number): Promise<number> {
  const reached = (): Set<string> => new Set(site.cloud.received.map((each) => each.path))
  await eventually(() => expect(reached().size).toBe(devices.length), { timeoutMs: 40_000, everyMs: 50 })
  const firsts = new Map<string, number>()
  for (const { path, at } of site.cloud.received) if (!firsts.has(path)) firsts.set(path, at)
  const lastMs = Math.max(...firsts.values()) - sinceMs
  await eventually(
    async () => {
      const states = await site.query(`SELECT state, count(*)::int AS n FROM pushes GROUP BY state`)
      expect(states).toEqual([{ state: 'sent', n: devices.length }])
    },
    { timeoutMs: 30_000 },
  )
  return lastMs
}

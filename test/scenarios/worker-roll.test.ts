import { describe, expect, test } from 'vitest'
import { type EngineName, openSite, type Site, untilUp } from '../support/workers.ts'

const engines: EngineName[] = ['redis', 'postgres']

const pidsOf = async (site: Site) =>
  (await site.nodes()).flatMap((node) => node.children.map((child) => child.pid))

/** Enqueues a short job now and then until it is told to stop. @returns their ids */
async function load(site: Site, signal: AbortSignal): Promise<string[]> {
  const ids: string[] = []
  while (!signal.aborted) {
    ids.push(await site.enqueue('sleep', { ms: 50 }))
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
  return ids
}

describe.each(engines)('on %s', (engine) => {
  test('HUP under load replaces all children, interrupts no job and lets no second go by without one', async () => {
    const site = await openSite({ engine })
    const worker = await site.startWorker({ WORKER_PROCESSES: '2' })
    const old = await pidsOf(site)
    const end = new AbortController()
    const loading = load(site, end.signal)
    const long = await site.enqueue('sleep', { ms: 2_500 })
    await site.jobIs(long, 'active')
    worker.signal('SIGHUP')
    await worker.waitForLine(/all children are new/, 30_000)
    await untilUp(site, 2)
    end.abort()
    const ids = await loading
    for (const id of [...ids, long]) await site.jobIs(id, 'completed')
    const [{ interrupted, attempts } = {}] = await site.query<{ interrupted: number; attempts: number }>(
      'SELECT sum(interruptions)::int AS interrupted, max(attempts)::int AS attempts FROM jobs',
    )
    expect({ interrupted, attempts }).toEqual({ interrupted: 0, attempts: 1 })
    const [{ gap } = {}] = await site.query<{ gap: number }>(
      `
      SELECT max(gap)::float AS gap FROM (
        SELECT extract(epoch FROM finished_at - lag(finished_at) OVER (ORDER BY finished_at)) AS gap
        FROM jobs WHERE id <> $1) AS gaps`,
      [long],
    )
    console.log(`${engine}: longest time without a finished job during a roll: ${gap} s`)
    expect(gap).toBeLessThan(1)
    expect((await pidsOf(site)).filter((pid) => old.includes(pid))).toEqual([])
  })
})

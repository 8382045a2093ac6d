import { expect, test } from 'vitest'
import { type BatonProcess, eventually } from '../support/processes.ts'
import { type Direction, startTcpProxy, type TcpProxy } from '../support/tcp-proxy.ts'
import { longestStopMs, openSite, type Site } from '../support/workers.ts'

// Connections that look open and carry nothing, as after the loss of a machine, a NAT or a firewall on the way.

/** What a worker is cut off from, and what carries its queues. */
const cuts = ['Redis', 'Postgres', 'Postgres that carries the queues too'] as const
type Cut = (typeof cuts)[number]

/**
 * Until what a silent connection held up has gone on, ms: 10 s at most for the connection, and 6 s for entries that were
 * taken by an answer that never came.
 */
const boundMs = 20_000

interface Line {
  site: Site
  proxy: TcpProxy
  worker: BatonProcess
  ids: string[]
}

/** A worker whose connections to one store go through a proxy. */
async function openLine(cut: Cut, env: Record<string, string> = {}): Promise<Line> {
  const site = await openSite({
    engine: cut === 'Postgres that carries the queues too' ? 'postgres' : 'redis',
  })
  await site.query('CREATE TABLE effects (job uuid NOT NULL)')
  const url = cut === 'Redis' ? (site.redis?.url ?? '') : site.databaseUrl
  const proxy = await startTcpProxy(Number(new URL(url).port))
  const variable = cut === 'Redis' ? 'REDIS_URL' : 'DATABASE_URL'
  const worker = await site.startWorker({ [variable]: proxy.through(url), ...env })
  return { site, proxy, worker, ids: [] }
}

async function enqueue(line: Line, count: number, ms = 20): Promise<void> {
  for (let each = 0; each < count; each++) line.ids.push(await line.site.enqueue('once', { ms }))
}

async function untilHeld(site: Site, count: number): Promise<void> {
  await eventually(async () => {
    const held = await site.query('SELECT FROM jobs WHERE outcome IS NULL AND run_token IS NOT NULL')
    expect(held).toHaveLength(count)
  })
}

/** Waits until all jobs are done, each with one effect. @returns how long it took, ms */
async function settle({ site, ids }: Line, timeoutMs: number): Promise<number> {
  const began = performance.now()
  await eventually(
    async () => {
      const left = await site.query(
        'SELECT id, attempts, interruptions, run_token FROM jobs WHERE outcome IS NULL LIMIT 2',
      )
      expect(left).toEqual([])
    },
    { timeoutMs, everyMs: 50 },
  )
  const tookMs = Math.round(performance.now() - began)
  const effects = await site.query<{ job: string }>('SELECT job FROM effects')
  expect(effects.map(({ job }) => job).sort()).toEqual(ids.toSorted())
  return tookMs
}

test('connections that carry nothing any more are given up in time, and no job is lost or done twice', async () => {
  const directions: Direction[] = ['both', 'to-client']
  await Promise.all(
    cuts.map(async (cut) => {
      const line = await openLine(cut)
      for (const direction of directions) {
        // Some are under way, some wait in the engine, and then the line is quiet.
        await enqueue(line, 4, 500)
        await untilHeld(line.site, 4)
        line.proxy.forget(direction)
        await enqueue(line, 12)
        const tookMs = await settle(line, boundMs)
        await enqueue(line, 1)
        const quietMs = await settle(line, boundMs)
        expect(Math.max(tookMs, quietMs)).toBeLessThan(boundMs)
        console.log(`${cut}, ${direction}: jobs went on after ${tookMs} ms, the next after ${quietMs} ms`)
      }
    }),
  )
})

test('a path that carries nothing for some seconds, and then goes on, costs no job and doubles none', async () => {
  await Promise.all(
    cuts.map(async (cut) => {
      const line = await openLine(cut)
      await enqueue(line, 8, 200)
      await untilHeld(line.site, 4)
      line.proxy.stall('both')
      await enqueue(line, 8)
      // Longer than a lock and a heartbeat live: this is what others take the jobs over after.
      await new Promise((resolve) => setTimeout(resolve, 6_000))
      line.proxy.resume()
      const tookMs = await settle(line, boundMs)
      expect(tookMs).toBeLessThan(boundMs)
      console.log(`${cut}: jobs went on ${tookMs} ms after the path`)
    }),
  )
})

test.each(['both', 'to-client'] as const)(
  'a stop while a store does not answer (%s) keeps its deadline',
  async (direction) => {
    await Promise.all(
      cuts.map(async (cut) => {
        const shutdownMs = 4_000
        const line = await openLine(cut, { SHUTDOWN_MS: String(shutdownMs) })
        await enqueue(line, 6, 300)
        await eventually(async () =>
          expect(await line.site.query('SELECT FROM jobs WHERE run_token IS NOT NULL')).not.toEqual([]),
        )
        line.proxy.stall(direction)
        const began = performance.now()
        line.worker.signal('SIGTERM')
        const { code } = await line.worker.exit
        const tookMs = Math.round(performance.now() - began)
        expect([0, 75]).toContain(code)
        expect(tookMs).toBeLessThan(longestStopMs(shutdownMs))
        line.proxy.cut()
        await line.site.startWorker()
        const settledMs = await settle(line, boundMs)
        console.log(
          `${cut}, ${direction}: ended with ${code} after ${tookMs} ms, the rest elsewhere in ${settledMs} ms`,
        )
      }),
    )
  },
)

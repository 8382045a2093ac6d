import { createHash, randomBytes } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { atEndOfTest, eventually } from '../support/processes.ts'
import { producerKey } from '../support/push-site.ts'
import { openTwoSites, type SiteOfTwo, type TwoSites, untilOver, watchOpen } from '../support/sites.ts'

/** What was accepted, by whichever site. */
interface Accepted {
  jobs: { id: string; n: number }[]
  pushes: string[]
  bodies: Map<string, Buffer>
  /** Of each client the last value of its state. */
  states: Map<string, string>
  /** Instants of acceptance, ms. */
  at: number[]
}

/** Clients that write without a pause, and follow a 503 to the other site. */
function startLoad({ a, b }: TwoSites, clients: number) {
  const accepted: Accepted = { jobs: [], pushes: [], bodies: new Map(), states: new Map(), at: [] }
  const faults: string[] = []
  let stopped = false
  let numbers = 0

  const client = async (name: string): Promise<void> => {
    let site: SiteOfTwo = a
    const send = async (method: string, path: string, body: string | Buffer): Promise<{ id: string }> => {
      for (;;) {
        const reply = await fetch(`${site.address}${path}`, {
          method,
          body: body as string,
          headers: {
            authorization: `Bearer ${producerKey}`,
            'content-type': typeof body === 'string' ? 'application/json' : 'application/octet-stream',
          },
        })
        const text = await reply.text()
        if (reply.ok) {
          accepted.at.push(performance.now())
          return text === '' ? { id: '' } : (JSON.parse(text) as { id: string })
        }
        if (!text.includes('SITE_CLOSED')) faults.push(`${method} ${path}: ${reply.status} ${text}`)
        if (faults.length > 0) throw new Error(faults[0])
        site = site === a ? b : a
        await pause(50)
      }
    }
    while (!stopped) {
      const n = ++numbers
      const bytes = randomBytes(2_000)
      const job = await send('POST', '/v1/jobs', JSON.stringify({ name: 'effect', payload: { n } }))
      accepted.jobs.push({ id: job.id, n })
      const push = await send('POST', '/v1/pushes', JSON.stringify({ to: { device: name }, payload: { n } }))
      accepted.pushes.push(push.id)
      const body = await send('PUT', '/v1/bodies', bytes)
      accepted.bodies.set(body.id, bytes)
      await send('PUT', `/v1/devices/${name}/states/devicedata/-/0`, Buffer.from(`state ${n}`))
      accepted.states.set(name, `state ${n}`)
      await pause(20)
    }
  }
  const names = Array.from({ length: clients }, (_none, index) => `phone-${index}`)
  const ready = Promise.all(
    names.map((name) => a.operate('PUT', `/v1/devices/${name}`, { user: 'ann', transports: [] })),
  )
  const running = ready.then(() => Promise.all(names.map(client)))
  running.catch(() => undefined)
  atEndOfTest(() => {
    stopped = true
  })
  return {
    accepted,
    stop: async (): Promise<Accepted> => {
      stopped = true
      await running
      return accepted
    },
  }
}

async function expectAll(site: SiteOfTwo, accepted: Accepted): Promise<void> {
  const { rows: jobs } = await site.postgres.query<{ id: string }>('SELECT id FROM jobs')
  const known = new Set(jobs.map(({ id }) => id))
  expect(accepted.jobs.filter(({ id }) => !known.has(id))).toEqual([])
  const { rows: pushes } = await site.postgres.query<{ id: string }>('SELECT id FROM pushes')
  const sent = new Set(pushes.map(({ id }) => id))
  expect(accepted.pushes.filter((id) => !sent.has(id))).toEqual([])
  const read = (path: string) =>
    fetch(`${site.address}${path}`, { headers: { authorization: `Bearer ${producerKey}` } })
  for (const [id, bytes] of accepted.bodies) {
    const back = Buffer.from(await (await read(`/v1/bodies/${id}`)).arrayBuffer())
    expect(createHash('sha256').update(back).digest('hex')).toBe(id)
    expect(back.equals(bytes)).toBe(true)
  }
  for (const [name, value] of accepted.states) {
    expect(await (await read(`/v1/devices/${name}/states/devicedata/-/0`)).text()).toBe(value)
  }
}

/** Each job has left its effect once, at whichever site it ran. */
async function expectEffectsOnce({ a, b }: TwoSites, accepted: Accepted): Promise<void> {
  await eventually(
    async () => {
      const effects = (
        await Promise.all(
          [a, b].map(
            async ({ postgres }) => (await postgres.query<{ n: number }>('SELECT n FROM effects')).rows,
          ),
        )
      ).flat()
      expect(effects.map(({ n }) => n).toSorted((x, y) => x - y)).toEqual(
        accepted.jobs.map(({ n }) => n).toSorted((x, y) => x - y),
      )
    },
    { timeoutMs: 30_000, everyMs: 100 },
  )
}

const longestGap = (at: number[]): number => {
  const sorted = at.toSorted((x, y) => x - y)
  return Math.max(...sorted.slice(1).map((each, index) => each - (sorted[index] ?? 0)))
}

test('under load a soft fail-over loses nothing, there and back, and the sites are never both open', async () => {
  const sites = await openTwoSites()
  const { a, b } = sites
  const load = startLoad(sites, 4)
  const watch = watchOpen(sites)
  await eventually(() => expect(load.accepted.jobs.length).toBeGreaterThan(12), { timeoutMs: 20_000 })

  await a.operate('PUT', '/v1/devices/listener', { user: 'ben', transports: [] })
  const listening = a.call('GET', '/v1/listen?device=listener')
  await eventually(async () => {
    const { rows } = await a.postgres.query(
      `SELECT FROM devices WHERE id = 'listener' AND listen_id IS NOT NULL`,
    )
    expect(rows).toHaveLength(1)
  })
  const began = performance.now()
  await a.operate('POST', '/v1/fail-over', { mode: 'soft', to: 'b' })
  // Whoever waits is asked to come again, long before the 25 s of a listen are over, and finds the gate.
  expect((await listening).status).toBe(204)
  expect(performance.now() - began).toBeLessThan(15_000)
  expect((await a.call('GET', '/v1/listen?device=listener')).status).toBe(503)
  const there = await untilOver(a)
  expect(there).toMatchObject({ phase: 'done', error: null })
  await Promise.all([a.is('replica', 'closed'), b.is('leader', 'open')])
  const half = load.accepted.jobs.length
  await eventually(() => expect(load.accepted.jobs.length).toBeGreaterThan(half + 8), { timeoutMs: 20_000 })

  await eventually(() => b.operate('POST', '/v1/fail-over', { mode: 'soft', to: 'a' }), { timeoutMs: 10_000 })
  const back = await untilOver(b)
  expect(back).toMatchObject({ phase: 'done', error: null })
  await Promise.all([a.is('leader', 'open'), b.is('replica', 'closed')])
  const whole = load.accepted.jobs.length
  await eventually(() => expect(load.accepted.jobs.length).toBeGreaterThan(whole + 8), { timeoutMs: 20_000 })
  const accepted = await load.stop()
  const { looks, violations } = await watch.stop()

  expect(violations).toBe(0)
  expect(looks).toBeGreaterThan(50)
  expect((await a.state()).epoch).toBe(3)
  await expectAll(a, accepted)
  await expectEffectsOnce(sites, accepted)
  console.info(
    `refused there ${there.refusedMs} ms, back ${back.refusedMs} ms; longest time without an acceptance ${Math.round(longestGap(accepted.at))} ms; ` +
      `${accepted.jobs.length} jobs, ${accepted.pushes.length} pushes, ${accepted.bodies.size} bodies`,
  )
})

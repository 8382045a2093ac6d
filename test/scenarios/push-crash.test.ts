import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { describe, expect, test } from 'vitest'
import type { Client as Connection } from '../../src/platform/postgres/postgres.ts'
import { atEndOfTest, eventually } from '../support/processes.ts'
import type { Received } from '../support/push-service.ts'
import { openPushSite, type PushSite } from '../support/push-site.ts'

// The sender of a cloud push is killed between any two steps of docs/protocols/push-alarm.md.

const identityOf = ({ headers }: Received): string => headers['webhook-id'] ?? ''

test('a silent device gets exactly one cloud push for each timeout when nothing fails, on either engine', async () => {
  await Promise.all((['redis', 'postgres'] as const).map(eachTimeoutOnce))
})

async function eachTimeoutOnce(engine: 'redis' | 'postgres'): Promise<void> {
  const site = await openPushSite(engine)
  const [web] = await Promise.all([site.startWeb(), site.startWorker(), site.startWorker()])
  const devices = await site.devices(200)
  for (let round = 0; round < 2; round += 1) {
    const body = devices.map((device) => ({
      to: { device },
      payload: round,
      confirmMs: 700 + ((round * 37) % 300),
    }))
    const sentAt = performance.now()
    expect((await web.call('POST', '/v1/pushes', { body })).status).toBe(202)
    await eventually(() => expect(site.cloud.received).toHaveLength(200 * (round + 1)), { timeoutMs: 30_000 })
    const lateness = site.cloud.received.slice(-200).map((each) => each.at - sentAt - 700)
    console.log(
      `${engine}: cloud pushes after the timeout: soonest ${Math.min(...lateness).toFixed(0)} ms, latest ${Math.max(...lateness).toFixed(0)} ms`,
    )
  }
  // Nothing follows, although sweeps and alarms go on.
  await pause(4_000)
  expect(site.cloud.received).toHaveLength(400)
  expect(new Set(site.cloud.received.map(identityOf)).size).toBe(400)
}

describe('the sending worker is killed', () => {
  test('before it claims: the next one sends', async () => {
    const { site, sentAt } = await begin({ confirmMs: 400 })
    const release = await holdDevice(site)
    const worker = await site.startWorker()
    await pause(1_500)
    expect(site.cloud.received).toHaveLength(0)
    await worker.kill()
    await release()
    await site.startWorker()
    await oneCloudPush(site, sentAt)
  })

  test('after it claimed, before the provider heard of it: the next one sends', async () => {
    const { site, sentAt } = await begin({ confirmMs: 0 })
    const deaf = await startDeafServer()
    await site.query('UPDATE transports SET address = $1', [`http://127.0.0.1:${deaf.port}/x`])
    const worker = await site.startWorker()
    await eventually(async () => expect(await stateOf(site)).toBe('sending'))
    await worker.kill()
    await site.query('UPDATE transports SET address = $1', [`${site.cloud.origin}/device-0`])
    await site.startWorker()
    await oneCloudPush(site, sentAt)
  })

  test('when the provider has it and has not answered: the next one sends it with the same identity', async () => {
    const { site } = await begin({ confirmMs: 0 })
    site.cloud.answer('hang')
    const worker = await site.startWorker()
    await eventually(() => expect(site.cloud.received).toHaveLength(1))
    await worker.kill()
    site.cloud.answer({ status: 204 })
    await site.startWorker()
    await sameAgain(site)
  })

  test('when the provider has accepted, before the row is marked: the next one sends it with the same identity', async () => {
    const { site } = await begin({ confirmMs: 0 })
    const held = Promise.withResolvers<void>()
    site.cloud.answer(async () => {
      await held.promise
      return { status: 204 }
    })
    const worker = await site.startWorker()
    await eventually(() => expect(site.cloud.received).toHaveLength(1))
    const release = await holdDevice(site)
    held.resolve()
    const waiting = `SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'baton%' AND wait_event_type = 'Lock'`
    await eventually(async () => expect(await site.query(waiting)).toHaveLength(1))
    await worker.kill()
    // Its statement would still be carried out once it gets the lock.
    await site.query(`SELECT pg_terminate_backend(pid) FROM (${waiting}) AS stuck`)
    await release()
    site.cloud.answer({ status: 204 })
    expect(await stateOf(site)).toBe('sending')
    await site.startWorker()
    await sameAgain(site)
  })
})

test('a worker that is told to stop finishes what is on its way', async () => {
  const { site } = await begin({ confirmMs: 0 })
  site.cloud.answer(async () => {
    await pause(1_500)
    return { status: 204 }
  })
  const worker = await site.startWorker()
  await eventually(() => expect(site.cloud.received).toHaveLength(1))
  worker.signal('SIGTERM')
  expect(await worker.exit).toEqual({ code: 0, signal: null })
  expect(await stateOf(site)).toBe('sent')
})

/** Everything is up but the worker, and a push is accepted. */
async function begin({ confirmMs }: { confirmMs: number }): Promise<{ site: PushSite; sentAt: number }> {
  const site = await openPushSite('redis')
  const web = await site.startWeb()
  await site.devices(1)
  const sent = await web.call('POST', '/v1/pushes', { body: { to: { device: 'device-0' }, confirmMs } })
  expect(sent.status).toBe(202)
  return { site, sentAt: performance.now() }
}

async function oneCloudPush(site: PushSite, sentAt: number): Promise<void> {
  await eventually(() => expect(site.cloud.received).toHaveLength(1), { timeoutMs: 30_000 })
  console.log(
    `the cloud push came ${((site.cloud.received[0]?.at ?? 0) - sentAt).toFixed(0)} ms after the acceptance`,
  )
  await eventually(async () => expect(await stateOf(site)).toBe('sent'))
  await pause(1_000)
  expect(site.cloud.received).toHaveLength(1)
}

async function sameAgain(site: PushSite): Promise<void> {
  await eventually(() => expect(site.cloud.received).toHaveLength(2), { timeoutMs: 30_000 })
  const [first, second] = site.cloud.received as [Received, Received]
  console.log(`sent again ${(second.at - first.at).toFixed(0)} ms after the first`)
  expect(identityOf(second)).toBe(identityOf(first))
  await eventually(async () => expect(await stateOf(site)).toBe('sent'))
  await pause(1_000)
  expect(site.cloud.received).toHaveLength(2)
}

async function stateOf(site: PushSite): Promise<unknown> {
  const [row] = await site.query('SELECT state FROM pushes')
  return row?.['state']
}

/** Locks the row of the device, so that nobody can claim or mark. */
async function holdDevice(site: PushSite): Promise<() => Promise<void>> {
  const client: Connection = await site.postgres.pool.connect()
  await client.query('BEGIN')
  await client.query('SELECT FROM devices FOR UPDATE')
  return async () => {
    await client.query('ROLLBACK')
    client.release()
  }
}

/** Takes connections and never reads from them. */
async function startDeafServer(): Promise<{ port: number }> {
  const sockets: Socket[] = []
  const server: Server = createServer({ pauseOnConnect: true }, (socket) => void sockets.push(socket))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  atEndOfTest(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { port: (server.address() as AddressInfo).port }
}

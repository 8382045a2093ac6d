import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { readEvents } from './events.ts'
import { type Harness, producer, startHarness } from './web-harness.ts'

const good = JSON.stringify({ name: 'mail', payload: { to: 'a' } })

/** A connection on which requests are written by hand. */
async function open(api: Harness): Promise<{ socket: Socket; text(): string; closed: Promise<unknown> }> {
  const socket = connect(Number(new URL(api.url).port), '127.0.0.1')
  let text = ''
  socket.on('data', (chunk) => (text += String(chunk)))
  const closed = once(socket, 'close')
  await once(socket, 'connect')
  return { socket, text: () => text, closed }
}

const head = (length: number): string =>
  `POST /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${producer}\r\n` +
  `Content-Type: application/json\r\nContent-Length: ${length}\r\n\r\n`

describe('a stop', () => {
  it('says so to load balancers first, answers what is under way and what comes, and ends streams with a hint', async () => {
    const api = await startHarness()
    const before = await api.count()
    const { id } = (await (await api.post(JSON.parse(good))).json()) as { id: string }
    const events = await readEvents(api, id)
    await events.next()
    // One request is half sent when the stop begins, one connection is open and silent.
    const half = await open(api)
    half.socket.write(head(good.length) + good.slice(0, 10))
    const silent = await open(api)

    const stopped = api.web.stop()
    expect((await api.request('/readyz')).status).toBe(503)
    expect((await api.request('/livez')).status).toBe(200)
    silent.socket.write(head(good.length) + good)
    await silent.closed
    expect(silent.text()).toMatch(/^HTTP\/1.1 202/)
    expect(silent.text().toLowerCase()).toContain('connection: close')
    expect(await events.ended).toBe(true)
    expect(events.text).toMatch(/retry: \d+\n/)
    half.socket.write(good.slice(10))
    await half.closed
    expect(half.text()).toMatch(/^HTTP\/1.1 202/)
    expect(await stopped).toBe(true)
    await expect(api.request('/livez')).rejects.toThrow('fetch failed')
    expect(await api.count()).toBe(before + 3)
    await api.close()
  })

  it('answers what comes on an open connection after it has stopped to listen', async () => {
    const api = await startHarness()
    const idle = await open(api)
    const stopped = api.web.stop()
    await expect.poll(() => api.web.server.server.listening, { timeout: 30_000, interval: 5 }).toBe(false)
    idle.socket.write(head(good.length) + good)
    await idle.closed
    expect(idle.text()).toMatch(/^HTTP\/1.1 202/)
    expect(await stopped).toBe(true)
    await api.close()
  })

  it('cuts no request of a load behind a balancer that looks whether it is ready', async () => {
    const api = await startHarness()
    const acknowledged: string[] = []
    const failures: string[] = []
    let ready = true
    const balancer = async (): Promise<void> => {
      while (ready) {
        ready = (await api.request('/readyz')).ok
        await new Promise((resolve) => setTimeout(resolve, 100))
      }
    }
    const client = async (): Promise<void> => {
      while (ready) {
        try {
          const response = await api.post(JSON.parse(good))
          if (response.status === 202) acknowledged.push(((await response.json()) as { id: string }).id)
          else failures.push(String(response.status))
        } catch (error) {
          failures.push(String((error as { cause?: { code?: string } }).cause?.code ?? error))
        }
      }
    }
    try {
      const all = [balancer(), ...Array.from({ length: 20 }, client)]
      await expect.poll(() => acknowledged.length, { timeout: 30_000 }).toBeGreaterThan(50)
      expect(await api.web.stop()).toBe(true)
      await Promise.all(all)
      expect(failures).toEqual([])
      expect((await api.ledger.getMany(acknowledged)).length).toBe(acknowledged.length)
      expect(await api.count()).toBe(acknowledged.length)
    } finally {
      ready = false
      await api.close()
    }
  })

  it('cuts what does not end in time, and says that it did', async () => {
    const api = await startHarness({ shutdownMs: 1_500 })
    const half = await open(api)
    half.socket.on('error', () => undefined)
    half.socket.write(head(good.length) + good.slice(0, 10))
    const began = performance.now()
    expect(await api.web.stop()).toBe(false)
    expect(performance.now() - began).toBeLessThan(5_000)
    await half.closed
    expect(await api.web.stop()).toBe(false)
    await api.close()
  })
})

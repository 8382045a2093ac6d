import { once } from 'node:events'
import { createServer, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type EventStream, openEventStream } from '../../../src/runtime/web/event-stream.ts'

let server: Server
let socket: Socket
let received = ''
let closed = 0

beforeEach(async () => {
  received = ''
  closed = 0
  server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
})
afterEach(async () => {
  socket.destroy()
  server.close()
  await once(server, 'close')
})

async function open(heartbeatMs: number): Promise<{ stream: EventStream; response: ServerResponse }> {
  socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  socket.on('data', (chunk) => (received += String(chunk))).on('error', () => undefined)
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  const [, response] = (await once(server, 'request')) as [unknown, ServerResponse]
  const stream = openEventStream(response, {
    headers: { 'x-a': 'b' },
    heartbeatMs,
    onClose: () => void closed++,
  })
  return { stream, response }
}

describe('an event stream', () => {
  it('sends a comment while nothing happens, and ends with a hint when to come again', async () => {
    const { stream } = await open(20)
    expect(stream.send({ event: 'progress', id: '1', data: { text: 'two\nlines' } })).toBe(true)
    await expect.poll(() => received.split(': still here\n\n').length).toBeGreaterThan(3)
    stream.end(1_234)
    await expect.poll(() => received).toContain('retry: 1234\n\n')
    expect(received).toContain('id: 1\nevent: progress\ndata: {"text":"two\\nlines"}\n\n')
    expect(received).toContain('0\r\n\r\n')
    expect(stream.send({ event: 'x', data: 1 })).toBe(false)
    expect([stream.open, closed]).toEqual([false, 1])
  })

  it('ends when its client had left before it began', async () => {
    socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
    socket.on('error', () => undefined)
    socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    const [, response] = (await once(server, 'request')) as [unknown, ServerResponse]
    const left = once(response, 'close')
    socket.destroy()
    await left
    const stream = openEventStream(response, { headers: {}, onClose: () => void closed++ })
    await expect.poll(() => closed).toBe(1)
    expect(stream.open).toBe(false)
    expect(stream.send({ event: 'x', data: 1 })).toBe(false)
  })

  it('keeps little for a reader that reads nothing, says so, and cuts it in the end', async () => {
    const { stream, response } = await open(300)
    socket.pause()
    const data = 'x'.repeat(100_000)
    let taken = 0
    // The kernel takes a few MiB before the reader counts as slow.
    while (stream.send({ event: 'progress', data }) && taken < 1_000) {
      taken++
      await new Promise(setImmediate)
    }
    expect(taken).toBeLessThan(1_000)
    expect(response.writableLength).toBeLessThan(65_536 + 101_000)
    expect(stream.send({ event: 'progress', data })).toBe(false)
    await expect.poll(() => stream.open, { timeout: 30_000 }).toBe(false)
    expect(closed).toBe(1)
  })

  it('notices that the reader has gone', async () => {
    const { stream } = await open(10_000)
    socket.destroy()
    await expect.poll(() => stream.open).toBe(false)
    expect(closed).toBe(1)
    stream.end()
    expect(closed).toBe(1)
  })
})

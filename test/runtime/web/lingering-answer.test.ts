import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import { connect, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { type Harness, problem, producer, startHarness } from './web-harness.ts'

let api: Harness
beforeAll(async () => {
  api = await startHarness()
})
afterAll(() => api.close())

const mebibyte = Buffer.alloc(1_048_576, 'x')
const head = (framing: string): string =>
  `POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${producer}\r\n` +
  `Content-Type: application/json\r\n${framing}\r\n\r\n`

async function open(): Promise<Socket> {
  const socket = connect(Number(new URL(api.url).port), '127.0.0.1')
  onTestFinished(() => void socket.destroy())
  await once(socket, 'connect')
  return socket
}

/** Writes all of it before it reads a byte, as many clients do. */
async function writeThenRead(socket: Socket, parts: Iterable<Buffer | string>): Promise<string> {
  socket.pause()
  for (const part of parts) {
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.write(part, (error) => (error ? reject(error) : resolve()))
    })
  }
  let text = ''
  socket
    .setEncoding('utf8')
    .on('data', (chunk: string) => (text += chunk))
    .resume()
  await once(socket, 'close')
  return text
}

const tooLarge = /^HTTP\/1\.1 413 [\s\S]*"code":"BODY_TOO_LARGE"/

describe('a body that is too large is answered in words', () => {
  it.each([5, 20, 50])('%d MiB, to a client that writes before it reads', async (count) => {
    const parts = [head(`Content-Length: ${count * mebibyte.length}`), ...Array<Buffer>(count).fill(mebibyte)]
    expect(await writeThenRead(await open(), parts)).toMatch(tooLarge)
  })

  it('of a length that is not told', async () => {
    const chunk = Buffer.concat([Buffer.from('100000\r\n'), mebibyte, Buffer.from('\r\n')])
    const parts = [head('Transfer-Encoding: chunked'), ...Array<Buffer>(20).fill(chunk), '0\r\n\r\n']
    expect(await writeThenRead(await open(), parts)).toMatch(tooLarge)
  })

  it('to a client that looks while it writes, at once', async () => {
    const socket = await open()
    socket.write(head(`Content-Length: ${50 * mebibyte.length}`))
    socket.write(mebibyte)
    const [first] = (await once(socket, 'data')) as [Buffer]
    expect(first.toString()).toMatch(tooLarge)
  })

  it('to fetch', async () => {
    for (let round = 0; round < 5; round++) {
      const response = await api.post(Buffer.alloc(20 * mebibyte.length, 'x'))
      expect(await problem(response)).toMatchObject({ status: 413, code: 'BODY_TOO_LARGE' })
    }
  })

  it('to the client of node:http', async () => {
    const options = {
      method: 'POST',
      headers: { authorization: `Bearer ${producer}`, 'content-type': 'application/json' },
    }
    const request = httpRequest(`${api.url}/v1/jobs`, options)
    const failed = once(request, 'error').then(([error]) => Promise.reject(error as Error))
    failed.catch(() => undefined)
    request.end(Buffer.alloc(20 * mebibyte.length, 'x'))
    const [response] = (await Promise.race([once(request, 'response'), failed])) as [
      { statusCode: number; resume(): void },
    ]
    response.resume()
    expect(response.statusCode).toBe(413)
  })

  it('and cut off, if it has no end', async () => {
    const socket = await open()
    socket.on('error', () => undefined)
    socket.write(head(`Content-Length: ${2 ** 40}`))
    let sent = 0
    for (; !socket.destroyed && sent < 500; sent++) {
      await new Promise<void>((resolve) => socket.once('close', resolve).write(mebibyte, () => resolve()))
    }
    expect(sent).toBeGreaterThan(50)
    expect(sent).toBeLessThan(200)
  })
})

import { randomBytes } from 'node:crypto'
import { EventEmitter } from 'node:events'
import { Writable } from 'node:stream'
import { expect, it, onTestFinished } from 'vitest'
import type { Listen } from '../../../src/domain/push/listen.ts'
import type { Listens } from '../../../src/domain/push/listens.ts'
import { streamListen } from '../../../src/runtime/web/listen-stream.ts'
import { type PushSocket, serveSocket } from '../../../src/runtime/web/routes/push-socket.ts'
import { usePushGround } from '../../domain/push/ground.ts'
import { eventually } from '../../support/processes.ts'

const ground = usePushGround()

/** A client of a stream, that takes nothing before it is told to. */
interface Client {
  /** Bytes that it was sent, taken or not. */
  sent(): number
  read(): void
}

/** As a response of node:http whose connection does not move. */
function serveEvents(listen: Listen): Client {
  let sent = 0
  let reading = false
  let held: (() => void) | undefined
  const raw = new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      sent += chunk.length
      if (reading) setImmediate(done)
      else held = done
    },
  })
  onTestFinished(() => void raw.destroy())
  const reply = { raw: Object.assign(raw, { writeHead: () => undefined }), hijack: () => undefined }
  void streamListen(listen, { id: 'test', log: { debug: () => undefined } } as never, reply as never)
  return {
    sent: () => sent + raw.writableLength,
    read: () => {
      reading = true
      held?.()
    },
  }
}

/** As a socket of `ws`. */
function serveMessages(listen: Listen, listens: Listens): Client {
  let sent = 0
  let reading = false
  const socket = Object.assign(new EventEmitter(), {
    readyState: 1,
    bufferedAmount: 0,
    send: (text: string) => {
      sent += text.length
      if (!reading) socket.bufferedAmount += text.length
    },
    pause: () => undefined,
    resume: () => undefined,
    ping: () => socket.emit('pong'),
    close: () => socket.terminate(),
    terminate: () => {
      socket.readyState = 3
      socket.emit('close')
    },
  })
  onTestFinished(() => socket.terminate())
  serveSocket(socket as PushSocket, { listen, listeners: [] }, listens)
  return {
    sent: () => sent,
    read: () => {
      reading = true
      socket.bufferedAmount = 0
    },
  }
}

it.each([
  ['events', serveEvents],
  ['messages', serveMessages],
])(
  'streams of %s hold the room of an answer until their client has taken it',
  async (what, serve) => {
    const { device, devices, acceptance, push } = ground()
    const accepting = acceptance()
    const phones = await Promise.all(
      Array.from({ length: 20 }, (_each, index) => device([], `${what}-${index}`)),
    )
    for (const phone of phones) await devices.put(phone, { groups: [what], transports: [] })
    for (let index = 0; index < 4; index++) {
      const payload = `"${randomBytes(735_000).toString('base64')}"`
      await accepting.accept([push({ group: what }, { payload })])
    }
    const listens = await ground().web()
    const clients = await Promise.all(
      phones.map(async (phone) => {
        const listeners = [{ device: phone, generation: undefined }]
        return serve(await listens.open({ listeners, after: undefined, stream: true }), listens)
      }),
    )
    // Beyond the cursor that each gets first.
    const served = (): Client[] => clients.filter((client) => client.sent() > 60_000)
    // 64 MiB of room for 80 MB of payloads.
    await eventually(() => expect(served()).toHaveLength(17))
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(served()).toHaveLength(17)
    for (const client of clients) client.read()
    await eventually(() => expect(served()).toHaveLength(20))
    await eventually(() =>
      expect(Math.min(...clients.map((client) => client.sent()))).toBeGreaterThan(3_900_000),
    )
  },
  60_000,
)

import { once } from 'node:events'
import { type AddressInfo, connect } from 'node:net'
import swagger from '@fastify/swagger'
import Fastify from 'fastify'
import { expect, it, onTestFinished } from 'vitest'
import type { Listen } from '../../../src/domain/push/listen.ts'
import type { Listens } from '../../../src/domain/push/listens.ts'
import { openApi } from '../../../src/runtime/web/open-api.ts'
import { addPushSocket } from '../../../src/runtime/web/routes/push-socket.ts'
import { eventually } from '../../support/processes.ts'

/** The route alone, with listens that open when `opened` resolves. */
async function start(opened = Promise.resolve(), confirm: Listens['confirm'] = async () => 1) {
  const counts = { asked: 0, closed: 0 }
  const listen: Listen = {
    devices: ['phone'],
    cursor: 'cursor',
    over: false,
    next: () => new Promise(() => undefined),
    answered: async () => undefined,
    giveBack: async () => undefined,
    close: () => void (counts.closed += 1),
  }
  const open = async (): Promise<Listen> => {
    counts.asked += 1
    await opened
    return listen
  }
  const listener = { device: 'phone', generation: undefined }
  const server = Fastify()
  await server.register(swagger, { openapi: openApi })
  await addPushSocket(server, {
    listens: { open, confirm, size: 0 } as unknown as Listens,
    access: { listeners: async () => [listener], listener: async () => listener },
    maxListens: 10,
  })
  await server.listen({ port: 0, host: '127.0.0.1' })
  onTestFinished(() => server.close())
  return { counts, server, port: (server.server.address() as AddressInfo).port }
}

const upgrade = [
  'GET /v1/listen/ws?device=phone HTTP/1.1',
  'host: localhost',
  'connection: upgrade',
  'upgrade: websocket',
  'sec-websocket-version: 13',
  'sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==',
  '\r\n',
].join('\r\n')

it.each(['destroy', 'resetAndDestroy'] as const)(
  'leaves no listen behind of a client that has gone (%s) before its WebSocket is open',
  async (go) => {
    const { promise, resolve } = Promise.withResolvers<void>()
    const { counts, port } = await start(promise)
    const client = connect(port, '127.0.0.1')
    await once(client, 'connect')
    client.write(upgrade)
    await eventually(() => expect(counts.asked).toBe(1))
    client[go]()
    // Its end arrives here while the listen is being opened.
    await new Promise((done) => setTimeout(done, 100))
    resolve()
    await eventually(() => expect(counts.closed).toBe(1))
  },
)

it('answers one message after the other, and reads no further one while an answer is not taken', async () => {
  let asked = 0
  const confirm = async (): Promise<number> => {
    asked += 1
    // An answer that no buffer on the way holds.
    return 'x'.repeat(8_388_608) as unknown as number
  }
  const { port } = await start(undefined, confirm)
  const client = connect(port, '127.0.0.1')
  onTestFinished(() => void client.destroy())
  client.write(upgrade)
  await once(client, 'data')
  client.pause()
  const text = '{"type":"confirm","cursor":"c"}'
  // Masked with zeros, as RFC 6455 has it of clients.
  const frame = Buffer.concat([Buffer.from([0x81, 0x80 | text.length, 0, 0, 0, 0]), Buffer.from(text)])
  client.write(Buffer.concat(Array.from({ length: 5 }, () => frame)))
  await eventually(() => expect(asked).toBe(1))
  await new Promise((done) => setTimeout(done, 200))
  expect(asked).toBe(1)
  client.resume()
  await eventually(() => expect(asked).toBe(5))
})

it('refuses by HTTP what asks for no upgrade, and opens no listen for it', async () => {
  const { counts, port } = await start()
  const answer = await fetch(`http://127.0.0.1:${port}/v1/listen/ws?device=phone`)
  expect(await answer.json()).toMatchObject({ code: 'INPUT_INVALID' })
  expect(counts).toEqual({ asked: 0, closed: 0 })
})

it('stands in the documents', async () => {
  const { server } = await start()
  expect(server.swagger().paths?.['/v1/listen/ws']?.get?.responses).toHaveProperty('101')
})

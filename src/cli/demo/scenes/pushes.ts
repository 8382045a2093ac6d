import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { childPids, type Scene, type Stage, until } from '../stage.ts'

interface Received {
  device: string
  /** The same when it is sent again. */
  id: string
  count: number
  atMs: number
}

/** A stand-in for the cloud: takes webhooks. */
interface Cloud {
  url: string
  received: Received[]
  /** Answers nothing while set, as a provider that hangs. */
  hangs: boolean
  close(): Promise<void>
}

interface Heard {
  cursor: string
  notifications: { id: string }[]
}

const burst = 100

/** A device that listens, one that does not, one whose sender dies, and one that is flooded. */
export const pushes: Scene = {
  title: 'Pushes to a device that listens, and to devices that do not',
  async play(stage) {
    const cloud = await startCloud()
    try {
      for (const device of ['listening', 'silent', 'orphaned', 'flooded']) {
        const transports = [{ kind: 'webhook', url: `${cloud.url}/${device}` }]
        await stage.client.call('PUT', `/v1/devices/${device}`, { transports })
      }
      await listeningDevice(stage, cloud)
      await silentDevice(stage, cloud)
      await killedSender(stage, cloud)
      await floodedDevice(stage, cloud)
    } finally {
      await cloud.close()
    }
  },
}

const send = (stage: Stage, device: string, confirmMs: number): Promise<{ id: string }> =>
  stage.client.call('POST', '/v1/pushes', {
    to: { device },
    payload: { text: 'hello' },
    priority: 'priority',
    confirmMs,
  })

const stateOf = async (stage: Stage, id: string): Promise<string | undefined> => {
  const log = await stage.client.call<{ devices: { state: string }[] }>('GET', `/v1/pushes/${id}`)
  return log.devices[0]?.state
}

async function listeningDevice(stage: Stage, cloud: Cloud): Promise<void> {
  const listening = stage.client.call<Heard>('GET', '/v1/listen?device=listening&waitMs=10000')
  await new Promise((resolve) => setTimeout(resolve, 200))
  const sentAt = performance.now()
  const { id } = await send(stage, 'listening', 1_500)
  const { cursor, notifications } = await listening
  const ms = Math.round(performance.now() - sentAt)
  stage.promise(`a listening device had its push ${ms} ms after it was sent`, notifications[0]?.id === id)
  await stage.client.call('GET', `/v1/listen?device=listening&after=${cursor}&waitMs=0`)
  await new Promise((resolve) => setTimeout(resolve, 2_500))
  const quiet = cloud.received.every((each) => each.device !== 'listening')
  stage.promise(
    'its next listen confirmed it, and its cloud was left alone',
    quiet && (await stateOf(stage, id)) === 'confirmed',
  )
}

async function silentDevice(stage: Stage, cloud: Cloud): Promise<void> {
  const sentAt = performance.now()
  const { id } = await send(stage, 'silent', 500)
  const first = await until('the cloud push', 10_000, async () =>
    cloud.received.find((each) => each.device === 'silent'),
  )
  const ms = Math.round(first.atMs - sentAt)
  await until('its mark', 5_000, async () => (await stateOf(stage, id)) === 'sent')
  const count = cloud.received.filter((each) => each.device === 'silent').length
  stage.promise(
    `a silent device had its cloud push ${ms} ms after it was sent (timeout 500 ms), once`,
    count === 1,
  )
}

async function killedSender(stage: Stage, cloud: Cloud): Promise<void> {
  cloud.hangs = true
  const { id } = await send(stage, 'orphaned', 0)
  const of = (): Received[] => cloud.received.filter((each) => each.device === 'orphaned')
  await until('the provider to be asked', 10_000, async () => of().length > 0)
  for (const pid of await childPids(stage)) process.kill(pid, 'SIGKILL')
  const killedAt = performance.now()
  cloud.hangs = false
  stage.say('kill -9 of the processes that were sending; the provider had not answered')
  await until('the push to be sent again', 30_000, async () => (await stateOf(stage, id)) === 'sent')
  const ms = Math.round(performance.now() - killedAt)
  const ids = new Set(of().map((each) => each.id))
  stage.promise(
    `others sent it after ${ms} ms, with the same id, so that a device shows one`,
    of().length === 2 && ids.size === 1,
  )
}

async function floodedDevice(stage: Stage, cloud: Cloud): Promise<void> {
  await Promise.all(Array.from({ length: burst }, () => send(stage, 'flooded', 0)))
  const of = (): Received[] => cloud.received.filter((each) => each.device === 'flooded')
  const arrived = (): number => of().reduce((sum, each) => sum + each.count, 0)
  await until('the whole burst', 40_000, async () => arrived() >= burst)
  stage.promise(
    `a burst of ${burst} to one device arrived as ${of().length} cloud pushes, none left out`,
    of().length <= 4 && arrived() === burst,
  )
}

async function startCloud(): Promise<Cloud> {
  const waiting = new Set<ServerResponse>()
  const cloud: Cloud = { url: '', received: [], hangs: false, close: async () => undefined }
  const server = createServer((request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => (body += chunk.toString()))
    request.on('error', () => undefined)
    request.on('end', () => {
      const { data } = JSON.parse(body) as { data: { device: string; count?: number } }
      const id = String(request.headers['webhook-id'])
      cloud.received.push({ device: data.device, id, count: data.count ?? 1, atMs: performance.now() })
      if (cloud.hangs) waiting.add(response)
      else response.writeHead(204).end()
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  cloud.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  cloud.close = async () => {
    for (const response of waiting) response.destroy()
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
  return cloud
}

import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { shardOf } from '../../src/domain/push/shard.ts'
import { createPostgres } from '../../src/platform/postgres/postgres.ts'
import { environmentOf, key, postPushes } from './push-sending.ts'
import { type Measure, median } from './result.ts'
import { type Servers, type Started, start } from './servers.ts'

const streamDevices = 1_000
const devicesOfStream = 100
const perRound = 10_000
const batch = 500
const openListens = 10_000
const warmUp = 2_000

/** From POST /v1/pushes to the bytes of open streams. */
export async function measureDelivery(servers: Servers): Promise<Measure[]> {
  await makeDevices(servers, 'stream', streamDevices)
  const web = start('baton', ['web'], environmentOf(servers))
  const port = Number((await web.saw(/127\.0\.0\.1:(\d+)/))[1])
  const address = `http://127.0.0.1:${port}`
  const heard = new Set<string>()
  const streams = Array.from({ length: streamDevices / devicesOfStream }, (_none, n) => {
    const query = Array.from(
      { length: devicesOfStream },
      (_each, m) => `device=stream-${n * devicesOfStream + m}`,
    )
    return openStream(port, `/v1/listen?${query.join('&')}`, (text) => {
      for (const [, id = ''] of text.matchAll(/"id":"([0-9a-f-]{36})"/g)) heard.add(id)
    })
  })
  await new Promise((resolve) => setTimeout(resolve, 1_500))
  const rates: number[] = []
  for (let round = 0; round < 3; round++) {
    const [before, startedAt] = [heard.size, performance.now()]
    for (let from = 0; from < perRound; from += batch * 2) {
      await Promise.all(
        [0, batch].map((more) =>
          postPushes(
            address,
            Array.from({ length: batch }, (_none, n) => ({
              to: { device: `stream-${(from + more + n) % streamDevices}` },
              payload: { n },
              confirmMs: 600_000,
            })),
          ),
        ),
      )
    }
    await until(() => heard.size >= before + perRound)
    rates.push((perRound * 1_000) / (performance.now() - startedAt))
  }
  for (const stream of streams) stream.destroy()
  await web.stop()
  return [
    {
      what: 'accept to delivered on open streams, one web process',
      ours: median(rates),
      unit: '1/s',
      aim: 3_000,
    },
  ]
}

/** Many long-polls on one web process: what each costs in memory, and how long a wake takes among them. */
export async function measureOpenListens(servers: Servers): Promise<Measure[]> {
  await makeDevices(servers, 'idle', openListens)
  const web = start('baton', ['web'], environmentOf(servers))
  const port = Number((await web.saw(/127\.0\.0\.1:(\d+)/))[1])
  const address = `http://127.0.0.1:${port}`
  const heardAt = new Map<number, number>()
  const sockets = new Map<number, Socket>()
  const openUpTo = async (count: number): Promise<number> => {
    for (let n = sockets.size; n < count; n++) {
      sockets.set(
        n,
        openPoll(port, n, () => void heardAt.set(n, performance.now())),
      )
      if (n % 200 === 199) await new Promise((resolve) => setTimeout(resolve, 60))
    }
    await until(async () => (await listensOf(address)) >= count)
    return residentBytes(web)
  }
  // The first ones pay for what a process grows to under any load.
  const before = await openUpTo(warmUp)
  const bytesEach = ((await openUpTo(openListens)) - before) / (openListens - warmUp)
  const latencies: number[] = []
  for (let n = 0; n < 500; n++) {
    const device = (n * 19) % openListens
    heardAt.delete(device)
    const sentAt = performance.now()
    await postPushes(address, [{ to: { device: `idle-${device}` }, priority: 'normal' }])
    await until(() => heardAt.has(device), 1)
    latencies.push((heardAt.get(device) ?? 0) - sentAt)
    sockets.get(device)?.destroy()
    sockets.set(
      device,
      openPoll(port, device, () => void heardAt.set(device, performance.now())),
    )
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  const wholeMiB = Math.round(residentBytes(web) / 2 ** 20)
  for (const socket of sockets.values()) socket.destroy()
  await web.stop()
  latencies.sort((a, b) => a - b)
  return [
    {
      what: '10,000 open listens, memory of each',
      ours: bytesEach / 1_024,
      unit: 'KiB',
      aim: 20,
      note: `beyond the first ${warmUp.toLocaleString('en')}; the process has ${wholeMiB} MiB with all of them`,
    },
    {
      what: 'a push to one of 10,000 open listens, p99',
      ours: latencies[Math.floor(latencies.length * 0.99)] ?? Number.NaN,
      unit: 'ms',
      note: `p50 ${(latencies[Math.floor(latencies.length / 2)] ?? 0).toFixed(1)} ms, the request included`,
    },
  ]
}

export async function makeDevices(servers: Servers, prefix: string, count: number): Promise<void> {
  const postgres = createPostgres({
    url: servers.databaseUrl,
    max: 1,
    applicationName: 'bench',
    onError: () => undefined,
  })
  const names = Array.from({ length: count }, (_none, n) => `${prefix}-${n}`)
  await postgres.query('INSERT INTO devices (id, shard) SELECT * FROM unnest($1::text[], $2::smallint[])', [
    names,
    names.map(shardOf),
  ])
  await postgres.query('ANALYZE devices')
  await postgres.close()
}

/** Kept up for as long as the measure takes: a poll that ends quietly begins again. */
function openPoll(port: number, n: number, onHeard: () => void): Socket {
  const ask = `GET /v1/listen?device=idle-${n} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer ${key}\r\n\r\n`
  const socket = connect(port, '127.0.0.1', () => socket.write(ask))
  socket.on('error', () => undefined)
  socket.on('data', (chunk) => {
    const head = chunk.toString('latin1', 9, 12)
    if (head === '200') onHeard()
    else if (head === '204') socket.write(ask)
  })
  return socket
}

function openStream(port: number, path: string, onText: (text: string) => void): Socket {
  const socket = connect(port, '127.0.0.1', () => {
    socket.write(
      `GET ${path} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\nAuthorization: Bearer ${key}\r\n\r\n`,
    )
  })
  let rest = ''
  socket.on('error', () => undefined)
  socket.on('data', (chunk) => {
    const text = rest + chunk.toString('latin1')
    // A mark may be cut in two by the network.
    const end = text.lastIndexOf('\n')
    rest = text.slice(end + 1)
    onText(text.slice(0, end + 1))
  })
  return socket
}

const residentBytes = ({ child }: Started): number => {
  const status = readFileSync(`/proc/${child.pid}/status`, 'utf8')
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1] ?? 0) * 1_024
}

async function listensOf(address: string): Promise<number> {
  const answer = await fetch(`${address}/metrics`, { headers: { authorization: `Bearer ${key}` } })
  return Number(/^baton_push_listens (\d+)$/m.exec(await answer.text())?.[1] ?? 0)
}

async function until(done: () => boolean | Promise<boolean>, everyMs = 10): Promise<void> {
  const deadline = performance.now() + 60_000
  while (!(await done())) {
    if (performance.now() > deadline) throw new Error('it did not come to pass within 60 s')
    await new Promise((resolve) => setTimeout(resolve, everyMs))
  }
}

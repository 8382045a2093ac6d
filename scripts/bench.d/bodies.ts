import { createHash, randomBytes } from 'node:crypto'
import { mkdir, open, readFile } from 'node:fs/promises'
import path from 'node:path'
import { createSystemClock } from '../../src/core/clock.ts'
import { type Bodies, createBodies } from '../../src/domain/bodies/bodies.ts'
import { createDirectoryStore } from '../../src/domain/bodies/stores/directory.ts'
import { createLog } from '../../src/platform/log.ts'
import { createPostgres } from '../../src/platform/postgres/postgres.ts'
import { type BenchResult, type Measure, median, rate } from './result.ts'
import { startServers } from './servers.ts'

interface Kind {
  what: string
  bytes: number
  clients: number
  rounds: number
  /** Bodies a client and round. */
  each: number
}

const kinds: Kind[] = [
  { what: '4 KiB', bytes: 4_096, clients: 32, rounds: 3, each: 40 },
  { what: '8 MiB', bytes: 8 * 2 ** 20, clients: 4, rounds: 3, each: 4 },
]

/** Bodies beside plain files: the sha256 is taken, two files are written and flushed; read, and the sha256 compared. */
export async function run(): Promise<BenchResult> {
  const servers = await startServers()
  const clock = createSystemClock()
  const postgres = createPostgres({
    url: servers.databaseUrl,
    max: 10,
    applicationName: 'bench',
    onError: () => undefined,
  })
  const stores = ['a', 'b'].map((name) =>
    createDirectoryStore({ root: path.join(servers.folder, name), clock }),
  )
  const bodies = createBodies({
    stores,
    postgres,
    clock,
    log: createLog({ level: 'silent', process: 'bench' }),
  })
  const plain = path.join(servers.folder, 'plain')
  await mkdir(plain)
  try {
    const measures: Measure[] = []
    for (const kind of kinds) measures.push(...(await compare(kind, bodies, plain)))
    measures.push(await memory(bodies))
    return { name: 'bodies', measures }
  } finally {
    await bodies.close()
    await postgres.close()
    await servers.stop()
  }
}

async function compare(kind: Kind, bodies: Bodies, folder: string): Promise<Measure[]> {
  const rates = { put: [] as number[], get: [] as number[], write: [] as number[], read: [] as number[] }
  await putMany({ ...kind, each: 2 }, bodies)
  for (let round = 0; round < kind.rounds; round++) {
    const put = await putMany(kind, bodies)
    const written = await writeMany(kind, folder)
    rates.put.push(put.perSecond)
    rates.write.push(written.perSecond)
    rates.get.push(await readMany(kind, put.ids, (id) => get(bodies, id)))
    rates.read.push(await readMany(kind, written.ids, (id) => readPlain(folder, id)))
  }
  const note = `${kind.clients} clients; the peer is two plain files with fsync and sha256`
  return [
    rate(`put ${kind.what}`, median(rates.put), median(rates.write), { note }),
    rate(`get ${kind.what}`, median(rates.get), median(rates.read), {
      note: `${kind.clients} clients; the peer reads one file and takes its sha256`,
    }),
  ]
}

/** Runs `work` with that many clients. @returns what came of it, and how many a second */
async function timed(
  kind: Kind,
  work: (index: number) => Promise<string>,
): Promise<{ ids: string[]; perSecond: number }> {
  const total = kind.clients * kind.each
  const ids: string[] = []
  let next = 0
  const begunMs = performance.now()
  const client = async (): Promise<void> => {
    while (next < total) ids.push(await work(next++))
  }
  await Promise.all(Array.from({ length: kind.clients }, client))
  return { ids, perSecond: (total * 1_000) / (performance.now() - begunMs) }
}

/** Fresh bytes each time: only the head differs, since making them would cost as much as hashing them. */
function freshBytes(size: number): Buffer {
  const bytes = Buffer.alloc(size, 'body')
  randomBytes(16).copy(bytes)
  return bytes
}

async function* inPieces(bytes: Buffer): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += 65_536) yield bytes.subarray(at, at + 65_536)
}

const putMany = (kind: Kind, bodies: Bodies) =>
  timed(kind, async () => (await bodies.put(inPieces(freshBytes(kind.bytes)))).id)

const writeMany = (kind: Kind, folder: string) =>
  timed(kind, async () => {
    const bytes = freshBytes(kind.bytes)
    const id = createHash('sha256').update(bytes).digest('hex')
    await Promise.all(['1', '2'].map((copy) => writePlain(path.join(folder, `${id}.${copy}`), bytes)))
    return id
  })

async function writePlain(file: string, bytes: Buffer): Promise<void> {
  const handle = await open(file, 'wx')
  await handle.writeFile(bytes)
  await handle.sync()
  await handle.close()
}

const readMany = async (kind: Kind, ids: string[], read: (id: string) => Promise<void>): Promise<number> =>
  (
    await timed(kind, async (index) => {
      const id = ids[index] ?? ''
      await read(id)
      return id
    })
  ).perSecond

async function get(bodies: Bodies, id: string): Promise<void> {
  const { stream, size } = await bodies.get(id)
  let length = 0
  for await (const chunk of stream as AsyncIterable<Buffer>) length += chunk.length
  if (length !== size) throw new Error('a body came short')
}

async function readPlain(folder: string, id: string): Promise<void> {
  const bytes = await readFile(path.join(folder, `${id}.1`))
  if (createHash('sha256').update(bytes).digest('hex') !== id) throw new Error('a file is wrong')
}

/** The most memory that this process has while a body of 512 MiB goes in and out. */
async function memory(bodies: Bodies): Promise<Measure> {
  let peak = 0
  const timer = setInterval(() => (peak = Math.max(peak, process.memoryUsage.rss())), 10)
  const source = async function* () {
    for (let n = 0; n < 8_192; n++) yield Buffer.alloc(65_536, n % 251)
  }
  const { id } = await bodies.put(source())
  await get(bodies, id)
  clearInterval(timer)
  return {
    what: 'memory of the process, 512 MiB in and out',
    ours: peak / 2 ** 20,
    unit: 'MiB',
    aim: 300,
    note: 'less is better',
  }
}

import { setTimeout as pause } from 'node:timers/promises'
import { createRedis } from '../../src/platform/redis.ts'
import { processTable } from '../../test/support/processes.ts'
import type { Random } from './random.ts'
import { type Site, stopUnit, type Unit } from './site.ts'

/** Resolves when what it did is over. */
interface Fault {
  name: string
  strike(site: Site, random: Random): Promise<void>
}

const processFaults: Fault[] = [
  {
    name: 'a child is killed',
    strike: (site, random) => onChild(site, random, (pid) => signal(pid, 'SIGKILL')),
  },
  {
    name: 'a child is killed',
    strike: (site, random) => onChild(site, random, (pid) => signal(pid, 'SIGKILL')),
  },
  {
    name: 'a child is frozen',
    strike: (site, random) => onChild(site, random, (pid) => freeze(pid, random.between(200, 7_000))),
  },
  {
    name: 'a master is frozen',
    strike: (site, random) => freeze(random.pick(site.workers).process.pid, random.between(500, 8_000)),
  },
  { name: 'a master is killed', strike: (site, random) => kill(random.pick(site.workers), 'master') },
  {
    name: 'a worker is killed with its children',
    strike: (site, random) => kill(random.pick(site.workers), 'group'),
  },
  { name: 'a worker is stopped', strike: (site, random) => restart(site, random.pick(site.workers)) },
  {
    name: 'a worker is rolled',
    strike: async (site, random) => random.pick(site.workers).process.signal('SIGHUP'),
  },
  { name: 'a worker is rolled and stopped', strike: rollAndStop },
  { name: 'a web node is killed', strike: (site, random) => kill(random.pick(site.webs), 'group') },
  { name: 'a web node is stopped', strike: (site, random) => restart(site, random.pick(site.webs)) },
  {
    name: 'a web node is frozen',
    strike: (site, random) => freeze(random.pick(site.webs).process.pid, random.between(200, 6_000)),
  },
]

const storeFaults: Fault[] = [
  { name: 'Postgres is killed', strike: killPostgres },
  { name: 'Postgres crashes', strike: crashPostgres },
  {
    name: 'Postgres is frozen',
    strike: ({ postgres }, random) => freezeServer(postgres, random.between(200, 9_000)),
  },
  { name: 'all connections to Postgres are cut', strike: cutConnections },
  { name: 'others take all connections of Postgres', strike: hogConnections },
]

const redisFaults: Fault[] = [
  { name: 'Redis is restarted', strike: async ({ redis }) => redis?.restart() },
  { name: 'Redis is away', strike: awayRedis },
  {
    name: 'Redis is frozen',
    strike: async ({ redis }, random) => redis && freezeServer(redis, random.between(200, 10_000)),
  },
  { name: 'Redis is emptied', strike: (site) => inRedis(site, (client) => client.flushall()) },
  {
    name: 'all connections to Redis are cut',
    strike: (site) => inRedis(site, (client) => client.client('KILL', 'TYPE', 'normal', 'SKIPME', 'yes')),
  },
]

export interface Faults {
  /** What was done, and how often. */
  struck: Map<string, number>
  /** No further fault; resolves when those under way are over and everything is up again. */
  end(): Promise<void>
}

/** Two strands beside each other: one ends processes, the other takes stores away. */
export function startFaults(site: Site, random: Random, say: (line: string) => void): Faults {
  const ended = new AbortController()
  const struck = new Map<string, number>()
  const strand = async (faults: Fault[], mine: Random): Promise<void> => {
    while (!ended.signal.aborted) {
      await pause(mine.between(300, 3_000), undefined, { signal: ended.signal }).catch(() => undefined)
      if (ended.signal.aborted) return
      const fault = mine.pick(faults)
      say(fault.name)
      struck.set(fault.name, (struck.get(fault.name) ?? 0) + 1)
      // A strike that fails, as on a process that was quicker, must not leave the whole site behind.
      await fault.strike(site, mine).catch((error: unknown) => say(`  it failed: ${String(error)}`))
    }
  }
  const stores = site.redis ? [...storeFaults, ...redisFaults] : storeFaults
  const running = [strand(processFaults, random.fork()), strand(stores, random.fork())]
  return {
    struck,
    end: async () => {
      ended.abort()
      await Promise.all(running)
    },
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name)
  } catch {
    // It was quicker.
  }
}

async function freeze(pid: number, ms: number): Promise<void> {
  signal(pid, 'SIGSTOP')
  await pause(ms)
  signal(pid, 'SIGCONT')
}

async function freezeServer(server: { freeze(frozen: boolean): Promise<void> }, ms: number): Promise<void> {
  await server.freeze(true)
  await pause(ms)
  await server.freeze(false)
}

async function onChild(site: Site, random: Random, act: (pid: number) => unknown): Promise<void> {
  const masters = site.workers.map((worker) => worker.process.pid)
  const children = (await processTable()).filter(({ ppid }) => masters.includes(ppid))
  const child = random.pick(children)
  if (child) await act(child.pid)
}

async function kill(unit: Unit, what: 'master' | 'group'): Promise<void> {
  if (unit.ending) return
  unit.ending = 'killed'
  if (what === 'group') unit.process.signalGroup('SIGKILL')
  else unit.process.signal('SIGKILL')
  // Of a master that was killed the children go on for a while, and hold the pipes open: they are not waited for.
  if (what === 'group') await unit.process.exit
  else await pause(100)
  unit.revive()
}

async function restart(site: Site, unit: Unit): Promise<void> {
  if (unit.ending) return
  await stopUnit(site, unit)
  unit.revive()
}

async function rollAndStop(site: Site, random: Random): Promise<void> {
  const unit = random.pick(site.workers)
  if (unit.ending) return
  for (let count = random.between(1, 5); count > 0; count--) unit.process.signal('SIGHUP')
  await pause(random.between(0, 1_500))
  await restart(site, unit)
}

async function killPostgres(site: Site): Promise<void> {
  site.postgresCrashes++
  await site.postgres.kill()
  await site.postgres.restart()
}

async function crashPostgres(site: Site, random: Random): Promise<void> {
  const { postgres } = site
  site.postgresCrashes++
  await postgres.kill('SIGQUIT')
  await pause(random.between(0, 5_000))
  await postgres.restart()
}

async function cutConnections({ database }: Site): Promise<void> {
  await database
    .query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`,
    )
    .catch(() => undefined)
}

async function hogConnections(site: Site, random: Random): Promise<void> {
  const { createPostgres } = await import('../../src/platform/postgres/postgres.ts')
  const hog = createPostgres({
    url: site.postgres.url,
    max: 130,
    applicationName: 'hog',
    maxWaitMs: 2_000,
    onError: () => undefined,
  })
  const seconds = random.between(1, 6)
  const held = Array.from({ length: 130 }, () =>
    hog.query('SELECT pg_sleep($1)', [seconds]).catch(() => undefined),
  )
  await Promise.all(held)
  await hog.close()
}

async function awayRedis({ redis }: Site, random: Random): Promise<void> {
  await redis?.kill()
  await pause(random.between(0, 6_000))
  await redis?.restart()
}

async function inRedis(
  { redis }: Site,
  work: (client: ReturnType<typeof createRedis>) => Promise<unknown>,
): Promise<void> {
  if (!redis) return
  const client = createRedis(redis.url, 'consumer')
  client.on('error', () => undefined)
  try {
    await work(client)
  } finally {
    client.disconnect()
  }
}

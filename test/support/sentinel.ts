import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { startWatchdog } from '../../src/platform/postgres/embedded/watchdog.ts'
import { createRedis } from '../../src/platform/redis.ts'
import { atEndOfTest, eventually, freePort } from './processes.ts'
import { type PrivateServer, startRedis } from './servers.ts'

/** A Redis with a replica, and a Sentinel that makes it the master when the first is gone. */
export interface SentinelGroup {
  /** For REDIS_URL. */
  readonly url: string
  readonly master: PrivateServer
  readonly replica: PrivateServer
  /** Resolves when Sentinel names the former replica as the master, and that is one. */
  failedOver(): Promise<void>
}

const name = 'baton'
const downAfterMs = 1_000

/** Needs a local redis-server. Ends with the test. */
export async function startSentinelGroup(): Promise<SentinelGroup> {
  const master = await startRedis()
  const replica = await startRedis({ args: ['--replicaof', '127.0.0.1', String(master.port)] })
  await untilReplicated(replica)
  const port = await startSentinel(master.port)
  const url = `redis+sentinel://127.0.0.1:${port}/${name}`
  await eventually(() => assertMaster(port, master.port), { timeoutMs: 15_000 })
  await eventually(() => assertReplicaKnown(port), { timeoutMs: 15_000 })
  return {
    url,
    master,
    replica,
    failedOver: () => eventually(() => assertMaster(port, replica.port), { timeoutMs: 30_000 }),
  }
}

async function startSentinel(masterPort: number): Promise<number> {
  const folder = await mkdtemp(path.join('/tmp', 'baton-test-sentinel-'))
  const file = path.join(folder, 'sentinel.conf')
  const port = await freePort()
  // One Sentinel, so it decides alone.
  await writeFile(
    file,
    [
      `port ${port}`,
      'bind 127.0.0.1',
      `dir ${folder}`,
      `sentinel monitor ${name} 127.0.0.1 ${masterPort} 1`,
      `sentinel down-after-milliseconds ${name} ${downAfterMs}`,
      `sentinel failover-timeout ${name} 5000`,
    ].join('\n'),
  )
  const child = spawn('redis-server', [file, '--sentinel'], { stdio: 'ignore' })
  await once(child, 'spawn')
  const callOff = startWatchdog(child.pid ?? 0, 'KILL')
  atEndOfTest(async () => {
    child.kill('SIGKILL')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'close')
    callOff()
    await rm(folder, { recursive: true, force: true })
  })
  return port
}

async function untilReplicated(replica: PrivateServer): Promise<void> {
  await eventually(
    async () => {
      const info = (await ask(replica.port, 'info', 'replication')) as string
      if (!info.includes('master_link_status:up')) throw new Error(`the replica is not in step: ${info}`)
    },
    { timeoutMs: 15_000, everyMs: 100 },
  )
}

async function assertMaster(sentinel: number, wanted: number): Promise<void> {
  const [, port] = (await ask(sentinel, 'sentinel', 'get-master-addr-by-name', name)) as string[]
  if (Number(port) !== wanted) throw new Error(`the master is ${port}`)
  const info = (await ask(wanted, 'info', 'replication')) as string
  if (!info.includes('role:master')) throw new Error(`${wanted} is no master yet`)
}

async function assertReplicaKnown(sentinel: number): Promise<void> {
  const replicas = (await ask(sentinel, 'sentinel', 'replicas', name)) as unknown[]
  if (replicas.length === 0) throw new Error('Sentinel has not met the replica yet')
}

async function ask(port: number, command: string, ...args: string[]): Promise<unknown> {
  const client = createRedis(`redis://127.0.0.1:${port}`, 'consumer')
  client.on('error', () => undefined)
  try {
    return await client.call(command, ...args)
  } finally {
    client.disconnect()
  }
}

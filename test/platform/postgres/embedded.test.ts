import { once } from 'node:events'
import { chmod, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { createServer, type Socket } from 'node:net'
import path from 'node:path'
import pg from 'pg'
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import type { Exit } from '../../../src/platform/postgres/embedded/postmaster.ts'
import {
  createEmbeddedPostgres,
  type EmbeddedPostgres,
  type EmbeddedPostgresOptions,
} from '../../../src/platform/postgres/embedded.ts'
import {
  type BatonProcess,
  eventually,
  freePort,
  isRunning,
  processTable,
  spawnNode,
} from '../../support/processes.ts'

const asRoot = process.getuid?.() === 0
let home: string
let created: EmbeddedPostgres[]

beforeEach(async () => {
  created = []
  home = await mkdtemp('/tmp/baton-embedded-')
  await chmod(home, 0o755)
})
afterEach(async () => {
  for (const postgres of created) await postgres.stop()
  await rm(home, { recursive: true, force: true })
})

/** Stopped after the test whatever happens, so that one failure does not become two. */
const create = (options: Partial<EmbeddedPostgresOptions> = {}) => {
  const postgres = createEmbeddedPostgres({ dataDir: home, settings: { fsync: 'off' }, ...options })
  created.push(postgres)
  return postgres
}

const query = async <R extends pg.QueryResultRow>(url: string, sql: string): Promise<R[]> => {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query<R>(sql)).rows
  } finally {
    await client.end()
  }
}

/** The pid that Postgres wrote down itself. */
const postmasterPid = async (url: string): Promise<number> => {
  const [row] = await query<{ text: string }>(url, `SELECT pg_read_file('postmaster.pid') AS text`)
  return Number.parseInt(row?.text ?? '', 10)
}

/** Another process that runs Postgres on the home, as `baton dev` would; deaf to Ctrl-C, as if it were draining. */
const startOwner = async (dataDir: string): Promise<{ owner: BatonProcess; url: string }> => {
  const script = `import { createEmbeddedPostgres } from '${path.resolve('src/platform/postgres/embedded.ts')}'
    process.on('SIGINT', () => console.log('interrupted'))
    const { url } = await createEmbeddedPostgres({ dataDir: ${JSON.stringify(dataDir)} }).start()
    console.log(url)`
  const owner = spawnNode(['--input-type=module-typescript', '--eval', script])
  return { owner, url: await owner.waitForLine(/^postgres:/) }
}

describe('the embedded Postgres', () => {
  it('serves a database and keeps its data over restarts, on the same port', async () => {
    const postgres = create()
    const { url } = await postgres.start()
    await query(url, 'CREATE TABLE kept (n int)')
    await query(url, 'INSERT INTO kept VALUES (42)')

    await postgres.restart()
    expect(postgres.url).toBe(url)
    expect(await query(url, 'SELECT n FROM kept')).toEqual([{ n: 42 }])

    await postgres.stop()
    const again = await postgres.start()
    expect(await query(again.url, 'SELECT n FROM kept')).toEqual([{ n: 42 }])
  })

  it('loses nothing that was committed when it is killed', async () => {
    const postgres = create({ settings: {} })
    const { url } = await postgres.start()
    await query(url, 'CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n')
    const holder = new pg.Client({ connectionString: url })
    holder.on('error', () => undefined)
    await holder.connect()

    await postgres.kill('SIGKILL')
    await expect(query(url, 'SELECT 1')).rejects.toThrow(/ECONNREFUSED/)
    await postgres.start()
    expect(await query(url, 'SELECT count(*)::int AS n FROM kept')).toEqual([{ n: 1000 }])
    await holder.end()
  })

  it('tells when Postgres ends by itself, and not when it was asked to', async () => {
    const exits: Exit[] = []
    const { promise, resolve } = Promise.withResolvers<void>()
    const postgres = create({ onExit: (exit) => resolve(void exits.push(exit)) })
    const { url } = await postgres.start()
    await postgres.restart()
    await postgres.kill('SIGTERM')
    expect(exits).toEqual([])

    await postgres.start()
    process.kill(await postmasterPid(url), 'SIGKILL')
    await promise
    expect(exits).toEqual([{ code: null, signal: 'SIGKILL' }])
    await postgres.start()
    expect(await query(url, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
  })

  it('wants a password, and keeps it from other users', async () => {
    const { url } = await create().start()
    const open = new URL(url)
    open.password = 'guess'
    await expect(query(open.href, 'SELECT 1')).rejects.toThrow(/password authentication failed/)
    expect((await stat(path.join(home, 'password'))).mode & 0o777).toBe(0o600)
    expect((await query<{ f: string }>(url, `SELECT current_setting('fsync') AS f`))[0]?.f).toBe('off')
  })

  it('stands repeated, early and simultaneous starts and stops', async () => {
    const postgres = create()
    expect(() => postgres.url).toThrow(/not started/)
    await postgres.stop()
    const urls = await Promise.all([postgres.start(), postgres.start()])
    expect(urls[0]).toEqual(urls[1])
    await Promise.all([postgres.stop(), postgres.stop()])
    const started = postgres.start()
    const stopped = postgres.stop()
    const { url } = await started
    await stopped
    await expect(query(url, 'SELECT 1')).rejects.toThrow(/ECONNREFUSED/)
  })

  it('leaves nothing when it is discarded, wherever its data had to lie', async () => {
    const inner = path.join(home, 'postgres')
    // Where Postgres runs as another user, this one keeps it out: its data go elsewhere.
    await chmod(home, 0o700)
    const postgres = create({ dataDir: inner })
    const { url } = await postgres.start()
    const [row] = await query<{ data_directory: string }>(url, 'SHOW data_directory')
    const data = row?.data_directory ?? ''
    await postgres.stop()
    await postgres.start()
    expect((await stat(data)).isDirectory()).toBe(true)
    await postgres.discard()
    await expect(stat(path.dirname(data))).rejects.toThrow('ENOENT')
    expect(await readdir(home)).toEqual([])
  })

  it('says so when its port is taken', async () => {
    const callers = new Set<Socket>()
    const port = await freePort()
    const server = createServer((socket) => void callers.add(socket)).listen(port, '127.0.0.1')
    await once(server, 'listening')
    const postgres = create({ port })
    await expect(postgres.start()).rejects.toThrow(/could not bind/)
    server.close()
    for (const socket of callers) socket.destroy()
    await once(server, 'close')
    expect((await postgres.start()).url).toContain(`:${port}/`)
  })

  it('says what to do with the data of another major version', async () => {
    const postgres = create()
    const { url } = await postgres.start()
    const [where] = await query<{ dir: string }>(url, `SELECT current_setting('data_directory') AS dir`)
    await postgres.stop()
    await writeFile(path.join(where?.dir ?? '', 'PG_VERSION'), '12\n')
    await expect(postgres.start()).rejects.toThrow(/are of Postgres 12, .*pg_dump/)
  })

  it('leaves a home to the process that uses it', async () => {
    const { url } = await create().start()
    const second = create()
    await expect(second.start()).rejects.toThrow(new RegExp(`process ${process.pid} uses`))
    await second.stop()
    expect(await query(url, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
  })

  it('goes on when the terminal interrupts everybody', async () => {
    const { owner, url } = await startOwner(home)
    owner.signalGroup('SIGINT')
    await owner.waitForLine(/^interrupted$/)
    expect(await query(url, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
    const pid = await postmasterPid(url)
    await owner.kill()
    await eventually(async () => expect(await isRunning(pid)).toBe(false))
  })

  it('is stopped by its watchdog when its process is killed', async () => {
    const { owner, url } = await startOwner(home)
    const pid = await postmasterPid(url)
    await owner.kill()
    await eventually(async () => expect(await isRunning(pid)).toBe(false))
    const next = await create().start()
    expect(await query(next.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
  })

  it('replaces an orphan whose watchdog was killed too', async () => {
    const { owner, url } = await startOwner(home)
    await query(url, 'CREATE TABLE kept AS SELECT 1 AS n')
    const pid = await postmasterPid(url)
    const dog = await findWatchdog(pid)
    process.kill(dog, 'SIGKILL')
    await owner.kill()
    expect(await isRunning(pid)).toBe(true)

    const next = await create().start()
    expect(await isRunning(pid)).toBe(false)
    expect(await query(next.url, 'SELECT n FROM kept')).toEqual([{ n: 1 }])
  })

  it('takes no notice of a stale pid file that names a stranger', async () => {
    const postgres = create()
    const { url } = await postgres.start()
    const [where] = await query<{ dir: string }>(url, `SELECT current_setting('data_directory') AS dir`)
    await postgres.stop()
    const file = path.join(where?.dir ?? '', 'postmaster.pid')
    await writeFile(file, `${process.ppid}\n${where?.dir}\n`)
    await writeFile(path.join(home, 'owner.json'), JSON.stringify({ pid: process.pid, origin: 1 }))
    await postgres.start()
    expect(await query(postgres.url, 'SELECT 1 AS one')).toEqual([{ one: 1 }])
  })

  // Of interest to root alone: nobody else runs Postgres as another user.
  it.runIf(asRoot)('moves its data where another user can reach them', async () => {
    await chmod(home, 0o700)
    const postgres = create()
    const { url } = await postgres.start()
    const [where] = await query<{ dir: string }>(url, `SELECT current_setting('data_directory') AS dir`)
    const dir = where?.dir ?? ''
    onTestFinished(() => rm(path.dirname(dir), { recursive: true, force: true }))
    expect(dir).toMatch(/^\/var\/tmp\/baton-postgres\//)
    expect((await stat(dir)).mode & 0o777).toBe(0o700)
    expect(await readdir(home)).not.toContain('data')
    await query(url, 'CREATE TABLE kept AS SELECT 1 AS n')
    await postgres.stop()
    expect(await query((await postgres.start()).url, 'SELECT n FROM kept')).toEqual([{ n: 1 }])

    // Whoever removes the home wants a new start, not the old data back.
    await postgres.stop()
    await rm(home, { recursive: true })
    const fresh = await postgres.start()
    await expect(query(fresh.url, 'SELECT n FROM kept')).rejects.toThrow(/does not exist/)
    await chmod(home, 0o755)
  })
})

const findWatchdog = async (postmaster: number): Promise<number> => {
  const all = await processTable()
  const dog = all.find(({ command }) => command.endsWith(`baton-watchdog INT ${postmaster}`))
  if (!dog) throw new Error('no watchdog found')
  return dog.pid
}

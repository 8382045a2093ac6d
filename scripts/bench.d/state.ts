import { readdirSync, readFileSync, statSync } from 'node:fs'
import path from 'node:path'
import { createSystemClock } from '../../src/core/clock.ts'
import { newId } from '../../src/core/ids.ts'
import { runMigration } from '../../src/domain/state/migration/engine.ts'
import { defaultOptions, type Migration } from '../../src/domain/state/migration/migration.ts'
import { createMigrations } from '../../src/domain/state/migration/migrations.ts'
import { createFigures } from '../../src/domain/state/migration/rows/figures.ts'
import { openStore } from '../../src/domain/state/open-store.ts'
import { encodeRows, type Field } from '../../src/domain/state/stores/copy-rows.ts'
import { parseFileName } from '../../src/domain/state/stores/file/name.ts'
import { createZPushSqlStore } from '../../src/domain/state/stores/zpush-sql.ts'
import { createLog } from '../../src/platform/log.ts'
import { copyIn } from '../../src/platform/postgres/copy-in.ts'
import { createPostgres, type Postgres } from '../../src/platform/postgres/postgres.ts'
import { plant } from '../../test/support/phones.ts'
import { type BenchResult, type Measure, median } from './result.ts'
import { type Servers, startServers } from './servers.ts'

const statesPerDevice = 13
/** With devicedata and the folders' data a device has 21. */
const perDevice = 21
const sizes = [5_000, 50_000]
const rounds = 3

const connect = (url: string): Postgres =>
  createPostgres({
    url,
    max: 16,
    applicationName: 'bench',
    onError: () => undefined,
    statementTimeoutMs: 600_000,
  })

/** States from Z-Push's files to its SQL tables, verified, beside a plain COPY of the same files without verification. */
export async function run(): Promise<BenchResult> {
  const servers = await startServers()
  try {
    const measures: Measure[] = []
    const perState: number[] = []
    for (const size of sizes) {
      const root = path.join(servers.folder, `states-${size}`)
      const states = plant({ root, devices: Math.round(size / perDevice), statesPerDevice })
      const [ours, peer]: [number[], number[]] = [[], []]
      for (let round = 0; round < rounds; round++) {
        peer.push(await measureCopy(servers, root, states))
        ours.push(await measureMigration(servers, root, states))
      }
      const [our, their] = [median(ours), median(peer)]
      perState.push((1_000 * our) / states)
      measures.push({
        what: `${states.toLocaleString('en')} states, files to SQL, verified, beside COPY without verification`,
        ours: our,
        peer: their,
        unit: 'ms',
        ratio: their / our,
        aim: 0.5,
        note: `${megabytes(root)} MB; ${((1_000 * our) / states).toFixed(0)} µs a state, COPY ${((1_000 * their) / states).toFixed(0)} µs`,
      })
    }
    const [few = 1, many = 1] = perState
    measures.push({
      what: 'time per state with ten times the states, beside that with few',
      ours: many,
      peer: few,
      unit: 'µs',
      ratio: few / many,
      aim: 0.8,
    })
    return { name: 'state', measures }
  } finally {
    await servers.stop()
  }
}

/** A database without tables. */
async function emptyDatabase(servers: Servers): Promise<string> {
  const admin = connect(servers.databaseUrl)
  await admin.query('DROP DATABASE IF EXISTS bench_states WITH (FORCE)')
  await admin.query('CREATE DATABASE bench_states TEMPLATE template0')
  await admin.query('CHECKPOINT')
  await admin.close()
  const url = new URL(servers.databaseUrl)
  url.pathname = '/bench_states'
  return url.href
}

async function measureMigration(servers: Servers, root: string, states: number): Promise<number> {
  const clock = createSystemClock()
  const database = connect(servers.databaseUrl)
  const migrations = createMigrations(database)
  const id = newId(clock.now())
  const targetUrl = `zpush+${await emptyDatabase(servers)}`
  await migrations.create({ id, sourceUrl: `file:${root}`, targetUrl, options: defaultOptions })
  const startedAt = performance.now()
  const ended = await runMigration(id, {
    migrations,
    openStore: (url) => openStore(url, { clock, connect }),
    clock,
    log: createLog({ level: 'error', process: 'bench' }),
    engine: 'bench',
    signal: new AbortController().signal,
    until: (each: Migration) => each.phase === 'ready' || each.paused,
  })
  const ms = performance.now() - startedAt
  const progress = await createFigures(database).progress(id)
  if (ended.phase !== 'ready' || progress.states !== states || progress.devices.pending > 0) {
    throw new Error(`moved ${progress.states} of ${states} states: ${ended.error?.message ?? ended.phase}`)
  }
  await migrations.remove(id)
  await database.close()
  return ms
}

/** What a script would do: every file, one after the other, into the same tables by one COPY in one transaction. */
async function measureCopy(servers: Servers, root: string, states: number): Promise<number> {
  const database = connect(await emptyDatabase(servers))
  await createZPushSqlStore({ database, place: 'bench' }).prepare('2')
  const startedAt = performance.now()
  const copied = await database.transaction((client) =>
    copyIn(
      client,
      `COPY states (device_id, uuid, state_type, counter, state_data, created_at, updated_at)
         FROM STDIN (FORMAT binary)`,
      encodeRows(readAll(root)),
    ),
  )
  const ms = performance.now() - startedAt
  if (copied !== states) throw new Error(`copied ${copied} of ${states} states`)
  await database.close()
  return ms
}

async function* readAll(root: string): AsyncIterable<Field[]> {
  const at = 1_700_000_000_000_000
  for (const file of stateFiles(root)) {
    const parsed = parseFileName(path.basename(file))
    if (parsed.kind !== 'state') throw new Error(`${file} is no state`)
    const { device, key } = parsed
    yield [
      { type: 'text', value: device },
      key.uuid === '' ? { type: 'null' } : { type: 'text', value: key.uuid },
      { type: 'text', value: key.type },
      { type: 'int4', value: key.counter },
      { type: 'bytes', value: readFileSync(file) },
      { type: 'instant', value: at },
      { type: 'instant', value: at },
    ]
  }
}

function* stateFiles(root: string): Iterable<string> {
  for (const first of readdirSync(root)) {
    if (first.length !== 1) continue
    for (const second of readdirSync(path.join(root, first))) {
      for (const name of readdirSync(path.join(root, first, second)))
        yield path.join(root, first, second, name)
    }
  }
}

function megabytes(root: string): number {
  let bytes = 0
  for (const file of stateFiles(root)) bytes += statSync(file).size
  return Math.round(bytes / 1_000_000)
}

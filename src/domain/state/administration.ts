import type { Clock } from '../../core/clock.ts'
import { newId } from '../../core/ids.ts'
import type { Log } from '../../platform/log.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import { STATE_URL_INVALID } from './errors.ts'
import { type EngineOptions, runMigration } from './migration/engine.ts'
import {
  defaultOptions,
  isOver,
  type Migration,
  type MigrationOptions,
  type Phase,
  type Wanted,
} from './migration/migration.ts'
import { allowedPhases, createMigrations, type Migrations } from './migration/migrations.ts'
import { resetMigration } from './migration/reset.ts'
import { createFigures, type Figures } from './migration/rows/figures.ts'
import { type Verification, verifyStores } from './migration/verify.ts'
import { type MigrationView, readRate, toView } from './migration/view.ts'
import { canonicalUrl, maskUrl, type OpenStoreOptions, openStore } from './open-store.ts'
import { type ScanReport, scanStore } from './scan.ts'
import { type MovableStore, openVersion } from './store.ts'

/** Everything that an operator can do with migrations, for the command line, HTTP and jobs alike. */
export interface StateAdministration {
  /** The open migration between the two stores, or a new one. Nothing is done yet: an engine does it. */
  start(from: string, to: string, options: StartOptions): Promise<Migration>
  find(from: string, to: string): Promise<Migration | undefined>
  get(id: string): Promise<Migration>
  list(): Promise<MigrationView[]>
  /** @param lines how many lines of the quarantine to bring */
  view(id: string, lines?: number): Promise<MigrationView>
  request(id: string, action: Action): Promise<MigrationView>
  /** Devices that could not be moved, with the reason of the last try. */
  failed(id: string, limit: number): Promise<{ device: string; error: string }[]>
  /** Of Baton's own store. */
  gate(): Promise<GateView>
  /** Reads both sides of a migration and compares every state. */
  verify(id: string, watch?: VerifyWatch): Promise<Verification>
  /** Takes what a rehearsal moved out of the target again and forgets the migration. @returns devices removed */
  reset(id: string, onProgress?: (devices: number) => void): Promise<number>
  /** Works on it, as leader or helper, until `until` holds or it is over. */
  work(id: string, options: WorkOptions): Promise<Migration>
  readonly migrations: Migrations
}

export type Action = 'pause' | 'resume' | 'cut-over' | 'roll-back' | 'cancel' | 'finish'

/** The gate before Baton's own store of states. */
export interface GateView {
  open: boolean
  /** `storm`, or absent: states are being moved. */
  reason?: string
  /** The migration whose mark closed it last. */
  owner?: string
  /** Of a hundred parts of the devices, how many are let in although it is closed. */
  admittedParts: number
  /** ISO 8601. */
  changedAt: string
}

export interface StartOptions extends Partial<MigrationOptions> {
  dryRun?: boolean
}

export interface ScanWatch {
  signal?: AbortSignal
  onProgress?(done: { devices: number; states: number; bytes: number }): void
}

export interface VerifyWatch {
  signal?: AbortSignal
  onProgress?(done: { devices: number; states: number }): void
}

export type WorkOptions = Pick<EngineOptions, 'engine' | 'signal' | 'concurrency' | 'until'>

export interface AdministrationOptions {
  /** Where migrations are kept: Baton's own database. */
  database: Postgres
  clock: Clock
  log: Log
  connect(url: string): Postgres
}

export function createStateAdministration(options: AdministrationOptions): StateAdministration {
  const { database, clock, log } = options
  const migrations = createMigrations(database)
  const figures = createFigures(database)
  const open = (url: string): MovableStore => openStore(url, options)

  const view = async (id: string, lines = 0): Promise<MigrationView> => {
    const [migration, progress, rate, quarantine] = await Promise.all([
      migrations.get(id),
      figures.progress(id),
      readRate(database, id),
      lines > 0 ? figures.quarantine(id, lines) : undefined,
    ])
    return toView({ migration, progress, rate, ...(quarantine ? { lines: quarantine } : {}) })
  }

  return {
    migrations,
    view,
    start: (from, to, start) => startOne({ open, migrations, clock }, { from, to, start }),
    find: (from, to) => migrations.findOpen(canonicalUrl(from), canonicalUrl(to)),
    get: (id) => migrations.get(id),
    list: async () => Promise.all((await migrations.list(50)).map((each) => view(each.id))),
    request: async (id, action) => {
      await act(migrations, id, action)
      return view(id)
    },
    failed: (id, limit) => figures.failed(id, limit),
    gate: () => readGate(database),
    verify: (id, watch) => verify({ open, migrations, figures }, id, watch ?? {}),
    reset: (id, onProgress) =>
      resetMigration({ open, migrations, figures }, id, onProgress ?? (() => undefined)),
    work: (id, work) => runMigration(id, { ...work, migrations, openStore: open, clock, log }),
  }
}

/** What `request` would not refuse, and what makes sense now. */
export function offeredActions({ phase, paused, wanted, stormGuard }: MigrationView): Action[] {
  if (isOver(phase) && phase !== 'done') return []
  const wishes = (['cut-over', 'roll-back', 'finish', 'cancel'] as const).filter(
    (action) => action !== wanted && allowedPhases[action].includes(phase),
  )
  const isStopped = phase === 'watching' && stormGuard.storm && stormGuard.admittedParts === undefined
  const canPause: Action[] = phase === 'done' || paused ? [] : ['pause']
  const canResume: Action[] = paused || isStopped ? ['resume'] : []
  return [...canResume, ...wishes, ...canPause]
}

async function readGate(database: Postgres): Promise<GateView> {
  const { rows } = await database.query<{
    version: string
    reason: string | null
    owner: string | null
    admitted: number
    changed_at: Date
  }>('SELECT version, reason, owner, admitted, changed_at FROM state_gate')
  const [row] = rows
  if (!row) throw new Error('the row of the gate is gone')
  return {
    open: row.version === openVersion,
    ...(row.reason === null ? {} : { reason: row.reason }),
    ...(row.owner === null ? {} : { owner: row.owner }),
    admittedParts: row.admitted,
    changedAt: row.changed_at.toISOString(),
  }
}

interface Tools {
  open(url: string): MovableStore
  migrations: Migrations
  figures: Figures
  clock: Clock
}

/**
 * The dry run by itself: needs no database of Baton's, writes nothing. Without a target, as if it went to Z-Push's SQL
 * tables; with one, that is looked at, too.
 */
export async function scanUrls(
  tools: OpenStoreOptions,
  work: ScanWatch & { from: string; to: string | undefined },
): Promise<ScanReport> {
  const store = openStore(canonicalUrl(work.from), tools)
  const target = work.to === undefined ? undefined : openStore(canonicalUrl(work.to), tools)
  try {
    await target?.check('target')
    const { signal, onProgress } = work
    return await scanStore({
      store,
      clock: tools.clock,
      ...(target ? { target } : {}),
      ...(signal ? { signal } : {}),
      ...(onProgress ? { onProgress } : {}),
    })
  } finally {
    await Promise.allSettled([store.close(), target?.close()])
  }
}

/** @throws STATE_URL_INVALID, and what the checks of both stores throw: before anything is written */
async function startOne(
  { open, migrations, clock }: Pick<Tools, 'open' | 'migrations' | 'clock'>,
  { from, to, start }: { from: string; to: string; start: StartOptions },
): Promise<Migration> {
  const [sourceUrl, targetUrl] = [canonicalUrl(from), canonicalUrl(to)]
  const { dryRun = false, ...options } = start
  if (sourceUrl === targetUrl) {
    throw STATE_URL_INVALID({ url: maskUrl(to), reason: 'it is the source as well' })
  }
  const known = dryRun ? undefined : await migrations.findOpen(sourceUrl, targetUrl)
  if (known) {
    await migrations.setOptions(known.id, options)
    return known
  }
  const [source, target] = [open(sourceUrl), open(targetUrl)]
  try {
    await source.check('source')
    await target.check('target')
  } finally {
    await Promise.allSettled([source.close(), target.close()])
  }
  const id = newId(clock.now())
  return migrations.create({ id, sourceUrl, targetUrl, options: { ...defaultOptions, ...options }, dryRun })
}

async function act(migrations: Migrations, id: string, action: Action): Promise<void> {
  switch (action) {
    case 'pause':
      return void (await migrations.setPaused(id, true))
    case 'resume':
      return resume(migrations, id)
    case 'cut-over':
    case 'roll-back':
    case 'cancel':
    case 'finish':
      return void (await migrations.request(id, action satisfies Wanted))
  }
}

/** Goes on; after a storm that means to keep the target and to let the phones in by portions. */
async function resume(migrations: Migrations, id: string): Promise<void> {
  const migration = await migrations.setPaused(id, false)
  if (migration.phase !== 'watching' || !migration.storm || migration.admitted !== undefined) return
  await migrations.advance(id, ['watching'], { admitted: 0, stamps: ['admitted_at'] })
}

async function verify(
  { open, migrations, figures }: Pick<Tools, 'open' | 'migrations' | 'figures'>,
  id: string,
  watch: VerifyWatch,
): Promise<Verification> {
  const migration = await migrations.get(id)
  const [source, target] = [open(migration.sourceUrl), open(migration.targetUrl)]
  const fingerprints = new Set<Phase>(['watching', 'done'])
  try {
    return await verifyStores({
      ...watch,
      source,
      target,
      heldKeys: (device) => figures.heldKeys(id, device),
      movedOn: async (device, fingerprint) =>
        fingerprints.has(migration.phase) && (await figures.targetFingerprint(id, device)) !== fingerprint,
    })
  } finally {
    await Promise.allSettled([source.close(), target.close()])
  }
}

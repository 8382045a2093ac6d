import type { Clock } from '../../../core/clock.ts'
import { BatonError, codeOf, messageOf } from '../../../core/errors.ts'
import type { Log } from '../../../platform/log.ts'
import { DATABASE_OVERLOADED, DATABASE_UNAVAILABLE } from '../../../platform/postgres/errors.ts'
import { MIGRATION_FAILED, MIGRATION_LEAD_LOST, STATE_STORE_FULL } from '../errors.ts'
import { scanStore, summaryOf } from '../scan.ts'
import { type MovableStore, openVersion } from '../store.ts'
import { cutOver } from './cut-over.ts'
import { gateOf, isOver, type Migration } from './migration.ts'
import type { Migrations } from './migrations.ts'
import { createRateLimit } from './rate-limit.ts'
import { rollBack } from './roll-back.ts'
import { type Bench, copyPending, runRound } from './round.ts'
import { createFigures } from './rows/figures.ts'
import { createSurveys } from './rows/surveys.ts'
import { createWatch, type Watch } from './watch.ts'

export interface EngineOptions {
  migrations: Migrations
  openStore(url: string): MovableStore
  clock: Clock
  log: Log
  /** Names this engine among those that share the migration. */
  engine: string
  /** Devices copied at once; 4 unless said. */
  concurrency?: number
  signal: AbortSignal
  /** Where to stop; an engine without it goes on until the migration is over. */
  until?(migration: Migration): boolean
  /** For how long a store or the database may be away before the engine gives up, ms; 5 minutes unless said. */
  patienceMs?: number
}

/**
 * Works on a migration until `until` holds or it is over: as its leader if there is none, else as one of those who
 * copy. May be stopped or killed anywhere and started again, here or on another machine.
 *
 * @returns the migration as it was last seen
 */
export async function runMigration(id: string, options: EngineOptions): Promise<Migration> {
  const migration = await options.migrations.get(id)
  const source = options.openStore(migration.sourceUrl)
  const target = options.openStore(migration.targetUrl)
  const stop = new AbortController()
  const signal = AbortSignal.any([options.signal, stop.signal])
  const bench: Bench = {
    migrations: options.migrations,
    surveys: createSurveys(options.migrations.database),
    figures: createFigures(options.migrations.database),
    source,
    target,
    clock: options.clock,
    log: options.log,
    limit: createRateLimit({ clock: options.clock, ...migration.options }),
    concurrency: options.concurrency ?? 4,
    signal,
    assertLeading: async (each) => {
      if (!(await options.migrations.lead(each, options.engine))) throw MIGRATION_LEAD_LOST({ id: each })
    },
  }
  try {
    return await createEngine(bench, options).run(id)
  } finally {
    stop.abort()
    await options.migrations.unlead(id, options.engine).catch(() => undefined)
    await Promise.allSettled([source.close(), target.close()])
  }
}

const seenMs = 2_000
const idleMs = 300

function createEngine(bench: Bench, options: EngineOptions) {
  const { migrations, clock, log } = bench
  let watch: Watch | undefined

  const leadStep = (migration: Migration): Promise<number> =>
    lead(bench, migration, () => (watch ??= createWatch(bench)))

  const step = async (id: string): Promise<Migration> => {
    const engines = await migrations.seen(id, options.engine)
    bench.limit.share(engines)
    const led = await migrations.lead(id, options.engine)
    const migration = led ?? (await migrations.get(id))
    if (isDone(migration, options)) return migration
    if (migration.paused) await clock.sleep(idleMs, bench.signal)
    else if (led) await clock.sleep(await whileSeen(id, options, () => leadStep(led)), bench.signal)
    else {
      await whileSeen(id, options, () => follow(bench, migration))
      await clock.sleep(idleMs, bench.signal)
    }
    return migration
  }

  const run = async (id: string): Promise<Migration> => {
    let awaySince: number | undefined
    for (;;) {
      bench.signal.throwIfAborted()
      try {
        const migration = await step(id)
        awaySince = undefined
        if (isDone(migration, options)) return migration
      } catch (error) {
        if (options.signal.aborted) throw error
        awaySince ??= clock.monotonicMs()
        const patient = clock.monotonicMs() - awaySince < (options.patienceMs ?? 300_000)
        if (!isAway(error) || !patient) await halt(id, error)
        else log.warn({ migration: id, code: codeOf(error) }, 'a store is away; the migration waits')
        await clock.sleep(500, bench.signal)
      }
    }
  }

  /** Pauses the migration with the reason: an operator mends it and resumes; what was moved stays moved. */
  const halt = async (id: string, error: unknown): Promise<void> => {
    const full = codeOf(error) === '53100'
    const seen = full ? STATE_STORE_FULL({ place: bench.target.place, reason: messageOf(error) }) : error
    const known = seen instanceof BatonError ? seen : MIGRATION_FAILED({ id, reason: messageOf(seen) })
    const reason = { code: known.code, message: known.message }
    log.error({ migration: id, ...reason }, 'the migration stands still')
    await migrations.halt(id, reason)
  }

  return { run }
}

/** One step of the phase. @returns how long to wait before the next, ms */
async function lead(bench: Bench, migration: Migration, watch: () => Watch): Promise<number> {
  switch (migration.phase) {
    case 'scanning':
      return dryRun(bench, migration)
    case 'copying':
      return copyAll(bench, migration)
    case 'ready':
      return obeyOrDelta(bench, migration)
    case 'cutting-over':
      await cutOver(bench, migration)
      return 0
    case 'watching':
      return obeyOrWatch(bench, migration, watch())
    case 'rolling-back':
      await rollBack(bench, migration)
      return 0
    case 'done':
      // Only a roll-back is asked of it.
      await bench.migrations.advance(migration.id, ['done'], { phase: 'rolling-back', wanted: null })
      return 0
    case 'scanned':
    case 'rolled-back':
    case 'cancelled':
      return idleMs
  }
}

/** What an engine does that is not the leader: it copies. */
async function follow(bench: Bench, migration: Migration): Promise<void> {
  const direction = migration.phase === 'rolling-back' ? 'back' : 'out'
  const fresh = migration.phase === 'cutting-over' || direction === 'back'
  await copyPending(bench, migration.id, { direction, fresh, merge: migration.storm !== undefined })
}

const isDone = (migration: Migration, options: EngineOptions): boolean =>
  (isOver(migration.phase) && !migration.wanted) || (options.until?.(migration) ?? false)

/** Says now and then that this engine is at work, while a long step goes on. */
async function whileSeen<T>(id: string, options: EngineOptions, work: () => Promise<T>): Promise<T> {
  const say = (): void => void options.migrations.seen(id, options.engine).catch(() => undefined)
  const timer = setInterval(say, seenMs)
  try {
    return await work()
  } finally {
    clearInterval(timer)
  }
}

/** "Not now" rather than "not so". */
const isAway = (error: unknown): boolean =>
  MIGRATION_LEAD_LOST.is(error) ||
  DATABASE_UNAVAILABLE.is(error) ||
  DATABASE_OVERLOADED.is(error) ||
  /^(?:57P0[123]|08...|ECONN\w+|EPIPE|25P03)$/.test(codeOf(error) ?? '') ||
  /Connection terminated|connection is closed|not queryable/.test(messageOf(error))

async function dryRun(bench: Bench, migration: Migration): Promise<number> {
  const { source: store, target, clock, signal } = bench
  const report = await scanStore({ store, target, clock, signal })
  const change = { phase: 'scanned', scan: summaryOf(report) } as const
  await bench.migrations.advance(migration.id, ['scanning'], { ...change, stamps: ['finished_at'] })
  return 0
}

/** Rounds until one is small: then what is left fits into a gate of seconds. */
async function copyAll(bench: Bench, migration: Migration): Promise<number> {
  if (migration.wanted === 'cancel') return cancel(bench, migration)
  await ensureTarget(bench, migration)
  const differing = await runRound(bench, migration, { direction: 'out', fresh: false })
  const { devices } = await bench.figures.progress(migration.id)
  const small = Math.max(10, devices.total / 100)
  if (differing <= small) await bench.migrations.advance(migration.id, ['copying'], { phase: 'ready' })
  return 0
}

/** The mark comes before the first byte: a target that was never marked may be another's. */
async function ensureTarget(bench: Bench, migration: Migration): Promise<void> {
  const gate = gateOf(migration.id)
  await bench.source.check('source', gate)
  await bench.target.check('target', gate)
  if ((await bench.target.version().catch(() => undefined)) !== gate) await bench.target.prepare(gate)
}

async function obeyOrDelta(bench: Bench, migration: Migration): Promise<number> {
  if (migration.wanted === 'cancel') return cancel(bench, migration)
  if (migration.wanted === 'cut-over') {
    await bench.migrations.advance(migration.id, ['ready'], {
      phase: 'cutting-over',
      wanted: null,
      note: null,
    })
    return 0
  }
  await runRound(bench, migration, { direction: 'out', fresh: false })
  return interruptible(bench, migration)
}

async function obeyOrWatch(bench: Bench, migration: Migration, watch: Watch): Promise<number> {
  const { migrations } = bench
  if (migration.wanted === 'roll-back') {
    await migrations.advance(migration.id, ['watching'], {
      phase: 'rolling-back',
      wanted: null,
      admitted: null,
    })
    return 0
  }
  const over = (migration.watchedMs ?? 0) > migration.options.watchMs && !migration.storm
  if (migration.wanted === 'finish' || over) {
    await migrations.advance(migration.id, ['watching'], {
      phase: 'done',
      wanted: null,
      stamps: ['finished_at'],
    })
    return 0
  }
  const pause = await watch.look(migration)
  return interruptible(bench, migration, pause)
}

/** Waits in small pieces, so that an operator's wish is not left lying. @returns 0 */
async function interruptible(bench: Bench, migration: Migration, ms?: number): Promise<number> {
  const until = bench.clock.monotonicMs() + (ms ?? migration.options.deltaEveryMs)
  while (bench.clock.monotonicMs() < until && !bench.signal.aborted) {
    await bench.clock.sleep(Math.min(250, until - bench.clock.monotonicMs()), bench.signal)
    const { wanted, paused } = await bench.migrations.get(migration.id)
    if (wanted || paused) return 0
  }
  return 0
}

async function cancel(bench: Bench, migration: Migration): Promise<number> {
  // The source was never touched. The target keeps its mark, so that a reset knows it for its own.
  if ((await bench.source.version()) === gateOf(migration.id)) await bench.source.setVersion(openVersion)
  const change = { phase: 'cancelled', wanted: null, stamps: ['finished_at'] } as const
  await bench.migrations.advance(migration.id, [migration.phase], { ...change, stamps: ['finished_at'] })
  return 0
}

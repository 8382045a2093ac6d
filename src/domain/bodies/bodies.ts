import { tmpdir } from 'node:os'
import type { Readable } from 'node:stream'
import type { Clock } from '../../core/clock.ts'
import type { Log } from '../../platform/log.ts'
import type { Metrics } from '../../platform/metrics.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import { createAdmission } from './admission.ts'
import { assertBodyId } from './body-id.ts'
import type { BodyStore } from './body-store.ts'
import { type BodyRow, createCatalog } from './catalog.ts'
import { checkBody, deliver, findBody } from './deliver.ts'
import { createGuardedStore } from './guarded-store.ts'
import { createMeter } from './meter.ts'
import { receive } from './receive.ts'
import { type RepairReport, repair } from './repair.ts'
import { createRepairQueue } from './repair-queue.ts'
import { createUpkeep } from './upkeep/create-upkeep.ts'
import type { BodyUpkeep } from './upkeep.ts'

/** What the rest of Baton sees of bodies. Whatever it hands out has been verified, byte for byte, before. */
export interface Bodies {
  /** Longest body that is taken, bytes. */
  readonly maxBytes: number
  /**
   * Reads the source once and writes it to two stores at the pace of the slower one, with constant memory.
   * When it resolves the copies are durable; when it throws nobody can see the body (unless it was there before).
   *
   * @throws BODY_TOO_LARGE, BODY_INCOMPLETE (the source failed), BODY_UNAVAILABLE, BODY_TIMEOUT, BODY_OVERLOADED,
   *   DATABASE_UNAVAILABLE, DATABASE_OVERLOADED
   */
  put(source: AsyncIterable<Uint8Array>, options?: PutOptions): Promise<PutResult>
  /**
   * Resolves when the first bytes are verified, so that a refusal can still become a status. Later chunks are
   * verified before they are sent; a bad one is read from the other copy, and if there is none the stream is
   * destroyed with the error before one wrong byte has left.
   *
   * @throws BODY_ID_INVALID, BODY_NOT_FOUND, BODY_RANGE_INVALID, BODY_UNAVAILABLE, BODY_TIMEOUT, BODY_CORRUPT,
   *   BODY_OVERLOADED, DATABASE_UNAVAILABLE, DATABASE_OVERLOADED
   */
  get(id: string, options?: GetOptions): Promise<Content>
  /** The same for jobs: `for await (const bytes of bodies.read(id))`. Throws what `get` does, at the first step. */
  read(id: string, options?: ReadOptions): AsyncIterable<Uint8Array>
  /** @throws BODY_ID_INVALID, BODY_NOT_FOUND, DATABASE_UNAVAILABLE, DATABASE_OVERLOADED */
  stat(id: string): Promise<BodyInfo>
  /**
   * As `stat`, and a store has shown that it has a copy of that length, which is not read.
   *
   * @throws what `get` does
   */
  check(id: string): Promise<BodyInfo>
  /** Reads every copy, takes bad ones away and writes missing ones. */
  repair(id: string): Promise<RepairReport>
  /** What keeps bodies whole over the years. */
  readonly upkeep: BodyUpkeep
  /** Resolves when the repairs that reads have set off are done. */
  idle(): Promise<void>
  /** Lets the repairs under way end, then closes the stores. */
  close(): Promise<void>
}

export interface PutOptions {
  /** With 1, a body of which only one copy could be written is taken, and repaired later. 2 unless said. */
  minCopies?: 1 | 2
  /** Aborts, leaving nothing. */
  signal?: AbortSignal
}

export interface PutResult {
  /** sha256 of the bytes, 64 lower-case hex digits. */
  id: string
  /** Bytes. */
  size: number
  /** Copies that were durable before the answer. */
  copies: number
}

/** `end` is the byte after the last. `suffix` asks for that many last bytes. */
export type ByteRange = { start: number; end?: number } | { suffix: number }

export interface GetOptions {
  range?: ByteRange
  signal?: AbortSignal
}

export interface ReadOptions {
  /** Begin with this byte; the size of the body is allowed and reads nothing. */
  start?: number
  signal?: AbortSignal
}

export interface Content {
  id: string
  /** Of the whole body. */
  size: number
  /** What the stream carries: from `start` to before `end`. */
  start: number
  end: number
  /** Destroy it when nobody wants the rest. */
  stream: Readable
}

export interface BodyInfo {
  id: string
  size: number
  /** Copies that are recorded. */
  copies: number
  /** ISO 8601. */
  createdAt: string
}

export interface BodiesOptions {
  /** Two or more places; each body lies in two of them. */
  stores: readonly BodyStore[]
  postgres: Postgres
  clock: Clock
  log: Log
  metrics?: Metrics
  /** Longest body, bytes; 1 GiB unless said. */
  maxBytes?: number
  /** Longest wait for one answer of a store, ms; 30 s unless said. */
  timeoutMs?: number
  /** Bodies sent and received at once; 64 of each unless said. */
  maxTransfers?: number
  /** How many more of each may wait, for up to 10 s; 1,000 unless said. */
  maxWaiting?: number
  /** A body to which nothing refers is kept so long after its last put, ms; 30 days unless said. */
  retentionMs?: number
  /** Where bodies are kept that have no id yet, when a store cannot. The system's folder for such unless said. */
  spoolFolder?: string
}

const copies = 2
const monthMs = 30 * 86_400_000

/** What the doors of the room share. */
function createParts(options: BodiesOptions) {
  const { postgres, clock, log, timeoutMs = 30_000 } = options
  const stores = options.stores.map((store) => createGuardedStore({ store, postgres, clock, timeoutMs }))
  const active = stores.filter(({ draining }) => !draining)
  const catalog = createCatalog(postgres)
  const meter = createMeter(options.metrics)
  const mend = (id: string) =>
    meter.repaired(repair({ stores, active, catalog, copies, clock, timeoutMs, log }, id))
  const repairs = createRepairQueue({ repair: mend, catalog, log })
  const admission = () =>
    createAdmission({
      clock,
      maxActive: options.maxTransfers ?? 64,
      maxWaiting: options.maxWaiting ?? 1_000,
      maxWaitMs: 10_000,
    })
  const delivery = { stores, catalog, clock, timeoutMs, admission: admission(), onSuspect: repairs.suspect }
  const intake = {
    stores: active,
    catalog,
    copies,
    admission: admission(),
    maxBytes: options.maxBytes ?? 2 ** 30,
    spoolFolder: options.spoolFolder ?? tmpdir(),
  }
  return { postgres, clock, log, meter, stores, active, catalog, copies, mend, repairs, delivery, intake }
}

/** Bodies over several stores, two verified copies each. */
export function createBodies(options: BodiesOptions): Bodies {
  const parts = createParts(options)
  const { stores, catalog, meter, mend, repairs, delivery, intake } = parts
  const get = async (id: string, wish: GetOptions = {}): Promise<Content> => {
    assertBodyId(id)
    return meter.got(deliver(delivery, id, wish))
  }
  const put: Bodies['put'] = (source, wish = {}) => meter.put(receive(intake, source, wish))

  return {
    maxBytes: intake.maxBytes,
    put,
    get,
    read: (id, wish) => readAll(get, id, wish),
    stat: async (id) => {
      assertBodyId(id)
      return infoOf(await findBody(catalog, id))
    },
    check: async (id) => {
      assertBodyId(id)
      return infoOf(await checkBody(delivery, id))
    },
    repair: async (id) => {
      assertBodyId(id)
      return mend(id)
    },
    upkeep: createUpkeep({
      ...parts,
      raw: options.stores,
      retentionMs: options.retentionMs ?? monthMs,
      repair: mend,
      put,
    }),
    idle: repairs.idle,
    close: async () => {
      await repairs.close()
      await Promise.all(stores.map((store) => store.close()))
    },
  }
}

const infoOf = ({ id, size, stores, createdAt }: BodyRow): BodyInfo => ({
  id,
  size,
  copies: stores.length,
  createdAt: createdAt.toISOString(),
})

async function* readAll(get: Bodies['get'], id: string, wish: ReadOptions = {}): AsyncGenerator<Uint8Array> {
  const start = wish.start ?? 0
  const { stream } = await get(id, {
    ...(start > 0 && { range: { start: start - 1 } }),
    ...(wish.signal && { signal: wish.signal }),
  })
  let surplus = start > 0 ? 1 : 0
  for await (const bytes of stream as AsyncIterable<Uint8Array>) {
    if (bytes.length > surplus) yield bytes.subarray(surplus)
    surplus = 0
  }
}

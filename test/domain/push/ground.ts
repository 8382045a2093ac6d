import { createECDH, randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll } from 'vitest'
import { createPayloads } from '../../../src/cli/compose/payloads.ts'
import { createSystemClock } from '../../../src/core/clock.ts'
import { newId } from '../../../src/core/ids.ts'
import { createReleasers } from '../../../src/core/lifecycle.ts'
import type { DuePoint } from '../../../src/domain/push/accept-rows.ts'
import { type Acceptance, createAcceptance } from '../../../src/domain/push/acceptance.ts'
import type { Alarms } from '../../../src/domain/push/alarms.ts'
import type { FloodLimit } from '../../../src/domain/push/claim-rows.ts'
import { createPushes, type Pushes } from '../../../src/domain/push/delivery-log.ts'
import { createDeviceTokens } from '../../../src/domain/push/device-token.ts'
import { createDevices, type Devices } from '../../../src/domain/push/devices.ts'
import { createDispatcher, type Dispatcher } from '../../../src/domain/push/dispatcher.ts'
import { createListenRows, type ListenRows } from '../../../src/domain/push/listen-rows.ts'
import { createListens, type Listens } from '../../../src/domain/push/listens.ts'
import { createPushPayloads, type PushPayloads } from '../../../src/domain/push/payloads.ts'
import type { Provider } from '../../../src/domain/push/provider.ts'
import { createStubProvider, type StubProvider } from '../../../src/domain/push/providers/stub.ts'
import type { NewPush, Target } from '../../../src/domain/push/push.ts'
import type { Transport, TransportKind } from '../../../src/domain/push/transport.ts'
import { createWakes, type Wakes } from '../../../src/domain/push/wakes.ts'
import { createLog } from '../../../src/platform/log.ts'
import { createMetrics } from '../../../src/platform/metrics.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import type { WakeBus } from '../../../src/platform/wake-bus.ts'
import { createPostgresWakeBus } from '../../../src/platform/wake-buses/postgres.ts'
import { createRedisWakeBus } from '../../../src/platform/wake-buses/redis.ts'
import { testDatabase, testRedis } from '../../support/databases.ts'

/** The parts of pushes on a real Postgres and a real wake bus; processes are played by several of a part. */
export interface PushGround {
  readonly postgres: Postgres
  readonly devices: Devices
  readonly rows: ListenRows
  readonly pushes: Pushes
  readonly bus: WakeBus
  readonly wakes: Wakes
  /** Holds the two stores of bodies, `a` and `b`. */
  readonly folder: string
  /** What was armed, in order. */
  readonly armed: DuePoint[]
  /** A further process that accepts. */
  acceptance(): Acceptance
  /** A further process that holds listens. */
  web(): Promise<Listens>
  /** A further process that sends. */
  worker(options?: Partial<WorkerOptions>): TestWorker
  /** A device with a stub transport (or those given). */
  device(transports?: Transport[], name?: string): Promise<string>
  push(to: string | Target, more?: Partial<NewPush>): NewPush
  /** Moves all instants of open pushes into the past by so much. */
  age(device: string, ms: number): Promise<void>
  state(push: string, device?: string): Promise<string | undefined>
}

interface WorkerOptions {
  provider: Provider
  /** Several, instead of one. */
  providers: ReadonlyMap<TransportKind, Provider>
  flood: FloodLimit
}

export interface TestWorker extends Dispatcher {
  readonly stub: StubProvider
}

export const stubTransport = (name = 'phone'): Transport => ({ kind: 'stub', address: name, options: {} })

/** No limit to speak of, for tests of other things. */
export const noFlood: FloodLimit = { intervalMs: 1, burst: 1_000 }

/** Keys of a browser, with the private half that it would keep. */
export function browserKeys() {
  const ecdh = createECDH('prime256v1')
  ecdh.generateKeys()
  const auth = randomBytes(16).toString('base64url')
  return { ecdh, auth, keys: { p256dh: ecdh.getPublicKey('base64url'), auth } }
}

export function usePushGround(engine: 'postgres' | 'redis' = 'postgres'): () => PushGround {
  let ground: (PushGround & { close(): Promise<void> }) | undefined
  beforeAll(async () => {
    ground = await createGround(engine)
  })
  afterAll(async () => {
    await ground?.close()
  })
  return () => {
    if (!ground) throw new Error('the ground is not laid')
    return ground
  }
}

async function createGround(engine: 'postgres' | 'redis'): Promise<PushGround & { close(): Promise<void> }> {
  const clock = createSystemClock()
  const log = createLog({ level: 'silent', process: 'test' })
  const metrics = createMetrics()
  const { url } = await testDatabase()
  const postgres = createPostgres({ url, max: 12, applicationName: 'push test', onError: () => undefined })
  const bus =
    engine === 'postgres'
      ? createPostgresWakeBus({ postgres, clock, onError: () => undefined })
      : createRedisWakeBus({ url: (await testRedis()).url, clock, onError: () => undefined })
  const wakes = createWakes({ bus, log })
  const rows = createListenRows(postgres)
  const armed: DuePoint[] = []
  const alarms: Alarms = { arm: (points) => void armed.push(...points), idle: async () => undefined }
  const devices = createDevices({ postgres, tokens: createDeviceTokens('a secret of the tests') })
  const folder = await mkdtemp(path.join(tmpdir(), 'baton-push-'))
  const closers: (() => Promise<void>)[] = []
  /** Of a further process. */
  const payloads = (): PushPayloads => {
    const releasers = createReleasers(() => undefined)
    closers.push(() => releasers.release())
    const config = { bodyStores: [`file:${folder}/a`, `file:${folder}/b`] }
    const store = createPayloads({
      config,
      clock,
      log,
      metrics,
      postgres,
      releasers,
    } as never)
    return createPushPayloads({ store, clock, log })
  }
  let made = 0
  return {
    postgres,
    devices,
    rows,
    bus,
    wakes,
    folder,
    armed,
    pushes: createPushes(postgres),
    acceptance: () => createAcceptance({ postgres, wakes, alarms, payloads: payloads(), clock, metrics }),
    web: async () => {
      const node = `web-${randomBytes(4).toString('hex')}`
      const listens = createListens({
        rows: createListenRows(postgres),
        payloads: payloads(),
        wakes,
        bus,
        node,
        clock,
        log,
        metrics,
      })
      await listens.start()
      closers.push(() => listens.stop())
      return listens
    },
    worker: (options = {}) => {
      const stub = createStubProvider()
      const provider = options.provider ?? stub
      const providers = options.providers ?? new Map<TransportKind, Provider>([[provider.kind, provider]])
      const flood = options.flood ?? noFlood
      const dispatcher = createDispatcher({
        postgres,
        providers,
        payloads: payloads(),
        alarms,
        flood,
        clock,
        log,
        metrics,
      })
      closers.push(() => dispatcher.drain(2_000))
      return Object.assign(dispatcher, { stub })
    },
    device: async (transports = [stubTransport()], name = `device-${(made += 1)}`) => {
      await devices.put(name, { transports })
      return name
    },
    push: (to, more = {}) => ({
      id: newId(clock.now()),
      to: typeof to === 'string' ? { device: to } : to,
      priority: true,
      ttlMs: 3_600_000,
      ...more,
    }),
    age: async (device, ms) => {
      await postgres.query(
        `UPDATE pushes SET due_at = due_at - $2 * interval '1 ms', expires_at = expires_at - $2 * interval '1 ms',
           accepted_at = accepted_at - $2 * interval '1 ms' WHERE device = $1 AND closed_at IS NULL`,
        [device, ms],
      )
    },
    state: async (push, device) => {
      const shown = await createPushes(postgres).show(push)
      return shown?.devices.find((each) => device === undefined || each.device === device)?.state
    },
    close: async () => {
      for (const close of closers) await close()
      await bus.close()
      await postgres.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

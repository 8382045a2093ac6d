import type { Clock } from '../../core/clock.ts'
import type { Metrics } from '../../platform/metrics.ts'
import { writeCursor } from './cursor.ts'
import { type Fetched, type ListenRows, maxRows } from './listen-rows.ts'
import type { Notification } from './push.ts'

export interface Given {
  notification: Notification
  /** Of a stream: confirms this notification and all that the listen gave before it. */
  cursor?: string
}

export type ListenAnswer =
  | { kind: 'notifications'; given: Given[]; cursor: string }
  /** The time passed, or the process is about to stop. */
  | { kind: 'quiet'; cursor: string }
  /** A newer listen has taken over. */
  | { kind: 'replaced' }

export interface Listen {
  readonly devices: string[]
  /** Where it stands now. */
  readonly cursor: string
  /** It has ended: nothing will come any more. */
  readonly over: boolean
  /** What is there, or what comes within `waitMs`. Call it again only when the answer is out: rows wait, memory does not. */
  next(waitMs: number): Promise<ListenAnswer>
  /** Takes back the last answer, since nobody is there any more to read it. */
  giveBack(): Promise<void>
  close(): void
}

/** A listen as the process that holds it sees it. */
export interface OpenListen extends Listen {
  readonly id: string
  readonly registered: boolean
  lookedAt: number
  begin(device: string, position: number): void
  wake(device: string): void
  wakeAll(): void
  replace(): void
  settle(): void
}

export interface OpenListenOptions {
  id: string
  devices: string[]
  rows: ListenRows
  clock: Clock
  metrics: Metrics
  /** Whether each notification is given with its own cursor. */
  stream: boolean
  forget(listen: OpenListen): void
}

/** Devices whose rows are fetched for one answer: bounds what an answer holds in memory. */
const maxDevicesAtOnce = 20

interface State {
  /** By device, the number of the last row that was given. Empty until the registration. */
  positions: Map<string, number>
  /** Devices that may have rows. All of them at first: whatever came before the registration. */
  stale: Set<string>
  /** The positions before the last answer. */
  before: Map<string, number>
  over: 'replaced' | 'settled' | 'closed' | undefined
  bell: Bell
}

export function createListen(options: OpenListenOptions): OpenListen {
  const { id, devices, clock } = options
  const state: State = {
    positions: new Map(),
    before: new Map(),
    stale: new Set(devices),
    over: undefined,
    bell: createBell(),
  }
  const listen: OpenListen = {
    id,
    devices,
    lookedAt: clock.monotonicMs(),
    get registered() {
      return state.positions.size === devices.length
    },
    get over() {
      return state.over !== undefined
    },
    get cursor() {
      return writeCursor(state.positions)
    },
    begin: (device, position) => void state.positions.set(device, position),
    wake: (device) => {
      state.stale.add(device)
      state.bell.ring()
    },
    wakeAll: () => {
      for (const device of devices) state.stale.add(device)
      state.bell.ring()
    },
    replace: () => end(state, 'replaced'),
    settle: () => end(state, 'settled'),
    next: (waitMs) => next(state, options, clock.monotonicMs() + waitMs),
    giveBack: async () => {
      const undone = [...state.before].filter(
        ([device, position]) => state.positions.get(device) !== position,
      )
      await Promise.all(undone.map(([device, position]) => options.rows.giveBack(device, id, position)))
    },
    close: () => {
      end(state, 'closed')
      options.forget(listen)
    },
  }
  return listen
}

function end(state: State, how: State['over']): void {
  state.over ??= how
  state.bell.ring()
}

async function next(state: State, options: OpenListenOptions, until: number): Promise<ListenAnswer> {
  for (;;) {
    if (state.over === 'replaced') return { kind: 'replaced' }
    if (state.stale.size > 0) {
      const given = await fetchSome(state, options)
      if (given.length > 0) return { kind: 'notifications', given, cursor: writeCursor(state.positions) }
      continue
    }
    const leftMs = until - options.clock.monotonicMs()
    if (state.over !== undefined || leftMs <= 0) {
      return { kind: 'quiet', cursor: writeCursor(state.positions) }
    }
    await state.bell.wait(leftMs)
  }
}

async function fetchSome(state: State, options: OpenListenOptions): Promise<Given[]> {
  const { positions, stale } = state
  state.before = new Map(positions)
  const some = [...stale].slice(0, maxDevicesAtOnce)
  for (const device of some) stale.delete(device)
  try {
    const fetched = await Promise.all(
      some.map((device) =>
        options.rows.fetch({ device, listen: options.id, position: positions.get(device) ?? 0 }),
      ),
    )
    return fetched.flatMap((each, index) => take(state, options, some[index] ?? '', each))
  } catch (error) {
    for (const device of some) stale.add(device)
    throw error
  }
}

function take(state: State, options: OpenListenOptions, device: string, fetched: Fetched): Given[] {
  if (fetched.kind === 'replaced') {
    end(state, 'replaced')
    return []
  }
  const { positions } = state
  // There may be more than one answer holds.
  if (fetched.rows.length >= maxRows) state.stale.add(device)
  return fetched.rows.map(({ seq, latencyMs, notification }) => {
    positions.set(device, Math.max(seq, positions.get(device) ?? 0))
    if (!Number.isNaN(latencyMs)) {
      options.metrics.observe('baton_push_delivery_seconds', {}, latencyMs / 1_000)
    }
    return options.stream ? { notification, cursor: writeCursor(positions) } : { notification }
  })
}

interface Bell {
  ring(): void
  /** Resolves when it rings, or after `ms`. */
  wait(ms: number): Promise<void>
}

function createBell(): Bell {
  let ring: (() => void) | undefined
  return {
    ring: () => ring?.(),
    wait: (ms) =>
      new Promise((resolve) => {
        const timer = setTimeout(() => ring?.(), ms)
        ring = () => {
          clearTimeout(timer)
          ring = undefined
          resolve()
        }
      }),
  }
}

import { randomUUID } from 'node:crypto'
import type { Clock } from '../../core/clock.ts'
import type { Service } from '../../core/lifecycle.ts'
import type { Log } from '../../platform/log.ts'
import type { Metrics } from '../../platform/metrics.ts'
import type { Subscription, WakeBus } from '../../platform/wake-bus.ts'
import { createAnswerRoom } from './answer-room.ts'
import { createAnsweredMarks } from './answered-marks.ts'
import { readCursor } from './cursor.ts'
import { DEVICE_NOT_FOUND, DEVICE_TOKEN_INVALID } from './errors.ts'
import { createListen, type Listen, type OpenListen } from './listen.ts'
import type { ListenRows, Registered } from './listen-rows.ts'
import { createOpenListens, type OpenListens, startLooking } from './open-listens.ts'
import type { PushPayloads } from './payloads.ts'
import type { Wakes } from './wakes.ts'

/** Who wants to hear of a device. `generation` comes from its token; undefined: an API key vouches. */
export interface Listener {
  device: string
  generation: string | undefined
}

export interface ListenRequest {
  listeners: Listener[]
  /** What was received so far; undefined confirms all that was delivered. */
  after: string | undefined
  /** Whether each notification comes with a cursor of its own. */
  stream?: boolean
}

/** All listens that this process holds. */
export interface Listens extends Service {
  /**
   * Confirms, takes over from any older listen of these devices, and is ready to give what is there and what comes.
   * @throws DEVICE_NOT_FOUND, DEVICE_TOKEN_INVALID, CURSOR_INVALID
   */
  open(request: ListenRequest): Promise<Listen>
  /** Confirms what a stream delivered. @returns how many pushes that were @throws as open does */
  confirm(listeners: Listener[], cursor: string): Promise<number>
  /** Answers every waiting listen as if its time had passed, and lets none wait any more: before a stop. */
  settle(): void
  /** Answers those that wait now; others may come: before the site takes no more writes. */
  dismiss(): void
  /** How many are open. */
  readonly size: number
}

export interface ListensOptions {
  rows: ListenRows
  payloads: PushPayloads
  wakes: Wakes
  bus: WakeBus
  /** Name of this process among all: new at each start. */
  node: string
  clock: Clock
  log: Log
  metrics: Metrics
}

export function createListens(options: ListensOptions): Listens {
  const { rows, payloads, wakes, node, clock, log, metrics } = options
  const listens = createOpenListens()
  const room = createAnswerRoom()
  const marks = createAnsweredMarks(rows, log)
  let subscription: Subscription | undefined
  let looking: { stop(): void } | undefined
  let settling = false

  const forget = (listen: OpenListen): void => {
    if (listens.remove(listen)) metrics.set('baton_push_listens', {}, listens.size)
  }

  return {
    open: async (request) => {
      const devices = request.listeners.map((each) => each.device)
      const stream = request.stream ?? false
      const parts = { rows, marks, payloads, room, clock, metrics, stream, forget }
      const listen = createListen({ id: randomUUID(), devices, ...parts })
      // Known here before its rows say so: a wake that comes right after the registration must find it.
      listens.add(listen)
      try {
        await marks.settled(devices)
        await register(options, listens, listen, request)
      } catch (error) {
        forget(listen)
        throw error
      }
      if (settling) listen.settle()
      metrics.set('baton_push_listens', {}, listens.size)
      return listen
    },
    confirm: async (listeners, cursor) => {
      const confirmed = await confirmAll(rows, listeners, cursor)
      metrics.count('baton_pushes_confirmed_total', {}, confirmed)
      return confirmed
    },
    settle: () => {
      settling = true
      for (const listen of listens.all()) listen.settle()
    },
    dismiss: () => {
      for (const listen of listens.all()) listen.settle()
    },
    get size() {
      return listens.size
    },
    start: async () => {
      subscription ??= await wakes.receive(node, listens.tell)
      options.bus.onRestored(() => {
        for (const listen of listens.all()) listen.wakeAll()
      })
      looking ??= startLooking({ listens, rows, clock, log })
    },
    stop: async () => {
      settling = true
      looking?.stop()
      for (const listen of listens.all()) listen.settle()
      await subscription?.unsubscribe().catch(() => undefined)
      subscription = undefined
    },
  }
}

/** A device that the cursor does not name is left as it is. */
async function confirmAll(rows: ListenRows, listeners: Listener[], cursor: string): Promise<number> {
  const positions = readCursor(
    cursor,
    listeners.map((each) => each.device),
  )
  const confirmed = await Promise.all(
    listeners.map(async (listener) => {
      const position = positions.get(listener.device)
      return position === undefined ? 0 : confirmOne(rows, listener, position)
    }),
  )
  return confirmed.reduce((total, each) => total + each, 0)
}

async function confirmOne(
  rows: ListenRows,
  { device, generation }: Listener,
  position: number,
): Promise<number> {
  const confirmed = await rows.confirm(device, generation, position)
  if (confirmed !== undefined) return confirmed
  throw generation === undefined ? DEVICE_NOT_FOUND({ device }) : DEVICE_TOKEN_INVALID({ device })
}

function assertRegistered(found: Registered, device: string): Extract<Registered, { kind: 'registered' }> {
  if (found.kind === 'unknown') throw DEVICE_NOT_FOUND({ device })
  if (found.kind === 'foreign') throw DEVICE_TOKEN_INVALID({ device })
  return found
}

/** Step 2: takes over, and tells whom it replaces. */
async function register(
  { rows, wakes, node, metrics }: ListensOptions,
  listens: OpenListens,
  listen: OpenListen,
  request: ListenRequest,
): Promise<void> {
  const { after, listeners } = request
  const known = after === undefined ? undefined : readCursor(after, listen.devices)
  const found = await Promise.all(
    listeners.map(({ device, generation }) => {
      const confirm = known ? (known.get(device) ?? 'nothing') : 'all'
      return rows.register({ device, generation, listen: listen.id, node, confirm })
    }),
  )
  for (const [index, each] of found.entries()) {
    const device = listeners[index]?.device ?? ''
    const registered = assertRegistered(each, device)
    listen.begin(device, registered.position)
    metrics.count('baton_pushes_confirmed_total', {}, registered.confirmed)
    const { replaced } = registered
    if (replaced?.node === node) listens.get(replaced.listen)?.replace()
    else if (replaced) void wakes.send(replaced.node, { kind: 'replaced', listens: [replaced.listen] })
  }
}

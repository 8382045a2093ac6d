import type { Clock } from '../../core/clock.ts'
import type { Metrics } from '../../platform/metrics.ts'
import type { AnswerRoom } from './answer-room.ts'
import { type AnswerRows, answerRows } from './answer-rows.ts'
import type { AnsweredMarks } from './answered-marks.ts'
import { createPositions, type Positions } from './cursor.ts'
import type { Fetched, FetchedRow } from './fetch-rows.ts'
import type { ListenRows } from './listen-rows.ts'
import type { PushPayloads } from './payloads.ts'
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
  /**
   * To be called when the last answer leaves: from then on it counts as delivered. Resolves when that is recorded, or
   * cannot be; never rejects. For the second time it does nothing.
   */
  answered(): Promise<void>
  /** Takes back the last answer, marked or not, since nobody is there any more to read it. */
  giveBack(): Promise<void>
  /** To be called when the last answer is out, or nobody is there any more: until then it takes up room. */
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
  marks: AnsweredMarks
  payloads: PushPayloads
  room: AnswerRoom
  clock: Clock
  metrics: Metrics
  /** Whether each notification is given with its own cursor. */
  stream: boolean
  forget(listen: OpenListen): void
}

/** Devices whose rows are fetched for one answer: bounds what an answer holds in memory. */
const maxDevicesAtOnce = 50
/** Every device is looked at, though the time has passed; but stores that are slow must not hold up an answer, ms. */
const overtimeMs = 5_000

interface State {
  positions: Positions
  /** Devices that have been registered; when all are, the listen is in force. */
  begun: number
  /** Devices that may have rows. All of them at first: whatever came before the registration. */
  stale: Set<string> | undefined
  /** The positions before the last answer, of the devices that it was about. */
  before: [device: string, position: number][]
  /** The last answer was told to be leaving. */
  marked: boolean
  over: 'replaced' | 'settled' | 'closed' | undefined
  /** Nobody is there any more to read an answer. */
  closed: boolean
  /** Takes back the wish to be told when the payload can be read that holds up a device. */
  held: Map<string, () => void> | undefined
  /** Gives back the room of the last answer. */
  leave: (() => void) | undefined
  /** Ends the pause that is under way. */
  rouse: (() => void) | undefined
}

export function createListen(options: OpenListenOptions): OpenListen {
  const { id, devices, clock } = options
  const state: State = {
    positions: createPositions(devices),
    begun: 0,
    stale: new Set(devices),
    before: [],
    marked: false,
    over: undefined,
    closed: false,
    held: undefined,
    leave: undefined,
    rouse: undefined,
  }
  const listen: OpenListen = {
    id,
    devices,
    lookedAt: clock.monotonicMs(),
    get registered() {
      return state.begun === devices.length
    },
    get over() {
      return state.over !== undefined
    },
    get cursor() {
      return state.positions.cursor()
    },
    begin: (device, position) => {
      state.positions.set(device, position)
      state.begun += 1
    },
    wake: (device) => wake(state, device),
    wakeAll: () => {
      state.stale = new Set(devices)
      state.rouse?.()
    },
    replace: () => end(state, 'replaced'),
    settle: () => end(state, 'settled'),
    next: (waitMs) => next(state, options, clock.monotonicMs() + waitMs),
    answered: () => markAnswered(state, options),
    giveBack: () => giveBack(state, options),
    close: () => {
      end(state, 'closed')
      state.closed = true
      for (const device of devices) release(state, device)
      leave(state)
      options.forget(listen)
    },
  }
  return listen
}

/** The devices of the last answer that it gave something of, with their positions before it. */
const moved = ({ before, positions }: State): State['before'] =>
  before.filter(([device, position]) => positions.get(device) !== position)

async function markAnswered(state: State, { id, marks }: OpenListenOptions): Promise<void> {
  const given = state.marked ? [] : moved(state)
  state.marked = true
  await Promise.all(given.map(([device]) => marks.mark(device, id, state.positions.get(device))))
}

async function giveBack(state: State, { id, rows }: OpenListenOptions): Promise<void> {
  const undone = moved(state)
  state.marked = true
  await Promise.all(undone.map(([device, position]) => rows.giveBack(device, id, position)))
}

function wake(state: State, device: string): void {
  markStale(state, device)
  state.rouse?.()
}

function release(state: State, device: string): void {
  state.held?.get(device)?.()
  state.held?.delete(device)
}

function end(state: State, how: State['over']): void {
  state.over ??= how
  state.rouse?.()
}

function leave(state: State): void {
  state.leave?.()
  state.leave = undefined
}

async function next(state: State, options: OpenListenOptions, until: number): Promise<ListenAnswer> {
  const patientUntil = Math.max(until, options.clock.monotonicMs() + overtimeMs)
  for (;;) {
    leave(state)
    if (state.over === 'replaced') return { kind: 'replaced' }
    if (state.stale !== undefined) {
      const given = await fetchSome(state, options, patientUntil)
      if (given.length > 0) return { kind: 'notifications', given, cursor: state.positions.cursor() }
      if (options.clock.monotonicMs() < patientUntil) continue
    }
    const leftMs = until - options.clock.monotonicMs()
    if (state.over !== undefined || leftMs <= 0) {
      return { kind: 'quiet', cursor: state.positions.cursor() }
    }
    await pause(state, leftMs)
  }
}

async function fetchSome(state: State, options: OpenListenOptions, until: number): Promise<Given[]> {
  const { positions } = state
  const takeRoom = (bytes: number): ReturnType<AnswerRoom['take']> =>
    options.room.take(bytes, Math.max(0, until - options.clock.monotonicMs()))
  const all = [...(state.stale ?? [])]
  const some = all.slice(0, maxDevicesAtOnce)
  state.stale = all.length > some.length ? new Set(all.slice(maxDevicesAtOnce)) : undefined
  state.before = some.map((device) => [device, positions.get(device)])
  state.marked = false
  try {
    const fetched = await Promise.all(
      some.map((device) =>
        options.rows.fetch({ device, listen: options.id, position: positions.get(device) }),
      ),
    )
    if (fetched.some(({ kind }) => kind === 'replaced')) end(state, 'replaced')
    const rows = fetched.map(rowsOf)
    const sources = { payloads: options.payloads, stored: options.rows.stored }
    const { answers, leave } = await answerRows(rows, sources, takeRoom)
    if (state.closed) leave()
    else state.leave = leave
    // Not of rows whose payload cannot be read now: those would be fetched again as fast as Postgres answers.
    for (const [index, { left }] of answers.entries())
      if (left === undefined && hasMore(fetched[index])) markStale(state, some[index] ?? '')
    const given = answers.map((answer, index) => take(state, options, some[index] ?? '', answer))
    return (await Promise.all(given)).flat()
  } catch (error) {
    state.stale = new Set([...(state.stale ?? []), ...some])
    throw error
  }
}

async function take(
  state: State,
  options: OpenListenOptions,
  device: string,
  { rows, left, held }: AnswerRows,
): Promise<Given[]> {
  const { positions } = state
  release(state, device)
  const given = rows.map(({ seq, latencyMs, notification }) => {
    positions.set(device, Math.max(seq, positions.get(device)))
    if (!Number.isNaN(latencyMs)) {
      options.metrics.observe('baton_push_delivery_seconds', {}, latencyMs / 1_000)
    }
    return options.stream ? { notification, cursor: positions.cursor() } : { notification }
  })
  if (left) {
    // With a number it would be what was given and not confirmed, which no look finds.
    await options.rows.giveBack(device, options.id, positions.get(device))
    // What cannot be read now is found by the look that every listen gets (open-listens.ts), if not before.
    if (left === 'full') markStale(state, device)
    else if (held !== undefined && !state.closed) {
      state.held ??= new Map()
      state.held.set(
        device,
        options.payloads.whenReadable(held, () => wake(state, device)),
      )
    }
  }
  return given
}

const rowsOf = (fetched: Fetched): FetchedRow[] => (fetched.kind === 'rows' ? fetched.rows : [])

const hasMore = (fetched: Fetched | undefined): boolean => fetched?.kind === 'rows' && fetched.more

function markStale(state: State, device: string): void {
  state.stale ??= new Set()
  state.stale.add(device)
}

/** Resolves when somebody rouses the listen, or after `ms`. */
const pause = (state: State, ms: number): Promise<void> =>
  new Promise((resolve) => {
    const rouse = (): void => {
      clearTimeout(timer)
      state.rouse = undefined
      resolve()
    }
    const timer = setTimeout(rouse, ms)
    state.rouse = rouse
  })

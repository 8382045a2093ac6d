import { randomUUID } from 'node:crypto'
import type { IQueueBackend, JobJson } from 'bullmq'
import type { Clock } from '../../../core/clock.ts'
import type { OpenedBackend } from './engine.ts'
import { asError } from './entries.ts'
import type { Ended, Exchanged, Taken } from './exchange.ts'

export interface ExchangeLoopOptions {
  opened: Pick<OpenedBackend, 'backend' | 'exchange'>
  /** The name of the consumer. */
  runner: string
  clock: Clock
  /** Entries that may be taken now. */
  room(): number
  onTaken(taken: Taken): void
  onHusk(id: string): void
  onFailed(id: string, code: number): void
  onError(error: Error): void
}

export interface ExchangeLoop {
  /** There may be room, or something to hand in: look. Cheap, and may be called at any time. */
  poke(): void
  /** Hands an entry in with the next exchange; `done` is called once the engine has it. */
  end(ended: Ended, done: () => void): void
  stop(): void
}

/** Entries of one exchange, either way. The engine does nothing else meanwhile. */
const maxEntries = 256
/** Longest wait for an entry in one command, seconds. Delayed entries shorten it. */
const blockSeconds = 5
/** Pause after a failure, ms. */
const retryMs = 500

/**
 * Takes entries as long as there is room and hands in those that are over, one exchange after the other: whatever
 * comes up while one is under way shares the next. When the line is empty it sleeps on BullMQ's own signal.
 */
export function createExchangeLoop(options: ExchangeLoopOptions): ExchangeLoop {
  const { opened, clock } = options
  const stopping = new AbortController()
  const tokens = randomUUID()
  let exchanges = 0
  let waiting: { ended: Ended; done: () => void }[] = []
  let turning = false

  const nextToken = (): string => `${tokens}:${exchanges++}:`
  const recover = async (error: unknown): Promise<void> => {
    if (stopping.signal.aborted) return
    options.onError(asError(error))
    await clock.sleep(retryMs, stopping.signal)
  }
  const line = createLine({ ...options, nextToken, recover, onAwake: () => poke(), signal: stopping.signal })

  const poke = (): void => {
    if (turning || stopping.signal.aborted) return
    if (waiting.length === 0 && line.wanted() === 0) return line.sleepIfEmpty()
    turning = true
    // Everything that ends in the same turn of the event loop shares the exchange.
    setImmediate(() => void turn())
  }

  const turn = async (): Promise<void> => {
    const batch = waiting.splice(0, maxEntries)
    const take = line.wanted()
    try {
      if (batch.length > 0 || take > 0) {
        const ended = batch.map((each) => each.ended)
        const result = await opened.exchange({ ended, take, tokenBase: nextToken(), epochMs: clock.now() })
        for (const { done } of batch.splice(0)) done()
        tell(options, result)
        if (take > 0) await line.goOn(result)
      }
    } catch (error) {
      waiting = [...batch, ...waiting]
      await recover(error)
    }
    turning = false
    poke()
  }

  return {
    poke,
    end: (ended, done) => {
      waiting.push({ ended, done })
      poke()
    },
    stop: () => stopping.abort(),
  }
}

interface LineOptions extends ExchangeLoopOptions {
  nextToken(): string
  recover(error: unknown): Promise<void>
  onAwake(): void
  signal: AbortSignal
}

/** What is known of the line that entries wait in: whether it may have more, and when it is worth looking again. */
interface Line {
  /** How many entries to ask for now. */
  wanted(): number
  /** After an exchange that asked for some. */
  goOn(result: Exchanged): Promise<void>
  /** Begins to wait for an entry, if there is none and there would be room for one. */
  sleepIfEmpty(): void
}

function createLine(options: LineOptions): Line {
  const { room, recover, signal } = options
  const { backend } = options.opened
  let mayHaveMore = true
  /** Doubled by each full exchange: after a silence all consumers wake, and the first shall not take everything. */
  let appetite = 1
  let dueAt = 0
  let sleeping = false

  const isEmpty = (nextAt: number): void => {
    mayHaveMore = false
    appetite = 1
    dueAt = nextAt
  }
  /** BullMQ's own fetch: it promotes what is due, and knows pauses and limits. */
  const ask = async (): Promise<void> => {
    const token = options.nextToken()
    const [json, id, limitMs, delayUntil] = (await backend.moveToActive(token, options.runner)) as NextJob
    if (json) options.onTaken(takenOf(json, id ?? '', token))
    else isEmpty(limitMs ? options.clock.now() + limitMs : (delayUntil ?? 0))
  }
  const sleep = async (): Promise<void> => {
    try {
      const { found, soonest } = await waitForEntry(backend, options.clock, dueAt)
      dueAt = soonest
      mayHaveMore = soonest === 0
      // Quiet by now, but the signal was ours: whoever takes it takes an entry, or it would be missing to others.
      if (found && mayHaveMore && room() <= 0 && !signal.aborted) await ask()
    } catch (error) {
      mayHaveMore = true
      if (!signal.aborted) await backend.reconnectBlocking().catch(() => undefined)
      await recover(error)
    }
    sleeping = false
    options.onAwake()
  }

  return {
    wanted: () => (mayHaveMore ? Math.max(0, Math.min(room(), appetite, maxEntries)) : 0),
    goOn: async ({ left, dueAt: nextAt }) => {
      if (left === 'some') appetite = Math.min(appetite * 2, maxEntries)
      else if (left === 'unclear') await ask()
      else isEmpty(nextAt)
    },
    sleepIfEmpty: () => {
      if (sleeping || mayHaveMore || room() <= 0) return
      sleeping = true
      void sleep()
    },
  }
}

function tell(options: ExchangeLoopOptions, { failed, husks, taken }: Exchanged): void {
  for (const { id, code } of failed) options.onFailed(id, code)
  for (const id of husks) options.onHusk(id)
  for (const each of taken) options.onTaken(each)
}

/**
 * Waits for BullMQ's signal, or until a delayed entry is due. A signal may tell of such an entry itself.
 * @returns when the next delayed entry is due, epoch ms; 0: it is time to look
 */
async function waitForEntry(
  backend: IQueueBackend,
  clock: Clock,
  dueAt: number,
): Promise<{ found: boolean; soonest: number }> {
  const seconds = dueAt > 0 ? (dueAt - clock.now()) / 1_000 : blockSeconds
  if (seconds <= 0) return { found: false, soonest: 0 }
  const longest = Math.max(Math.min(seconds, blockSeconds), backend.minimumBlockTimeout)
  const signal = await backend.waitForJob(longest)
  const isLater = signal !== null && signal.score > clock.now()
  if (!isLater) return { found: signal !== null, soonest: 0 }
  return { found: true, soonest: dueAt > 0 ? Math.min(dueAt, signal.score) : signal.score }
}

type NextJob = [json?: JobJson | null, id?: string, limitMs?: number, delayUntil?: number]

const takenOf = (json: JobJson, id: string, token: string): Taken => ({
  id,
  token,
  name: json.name,
  data: json.data,
  attempts: json.opts.attempts ?? 1,
  attemptsMade: json.attemptsMade,
  stalls: json.stalledCounter,
})

import { monitorEventLoopDelay } from 'node:perf_hooks'
import { OVERLOADED } from './errors.ts'

export interface OverloadOptions {
  /** Jobs that are accepted but not committed yet. */
  backlog(): number
  /** Callers that wait for a Postgres connection. */
  databaseWaiters(): number
  limits?: Partial<OverloadLimits>
}

export interface OverloadLimits {
  /** Jobs. */
  backlog: number
  /** Callers. */
  databaseWaiters: number
  /** How late a turn of the event loop may be, ms: 99 of 100 within the last second. */
  loopDelayMs: number
}

const defaults: OverloadLimits = { backlog: 20_000, databaseWaiters: 500, loopDelayMs: 1_000 }
const sampleMs = 1_000

export interface Overload {
  /** To be asked before anything is done for a request. @throws OVERLOADED */
  assertRoom(): void
  /** ms: 99 of 100 turns of the event loop in the last second were less late. */
  readonly loopDelayMs: number
  start(): void
  stop(): void
}

/**
 * Refuses intake while there is room for nothing but trouble. It costs three comparisons a request, which is why
 * @fastify/under-pressure, with its timers and its own answers, is not used.
 */
export function createOverload(options: OverloadOptions): Overload {
  const limits = { ...defaults, ...options.limits }
  let loopDelayMs = 0
  let histogram: ReturnType<typeof monitorEventLoopDelay> | undefined
  let timer: NodeJS.Timeout | undefined

  const refuse = (reason: string): never => {
    throw OVERLOADED({ reason }, { retryAfterMs: 1_000 + Math.random() * 2_000 })
  }

  return {
    assertRoom: () => {
      const backlog = options.backlog()
      if (backlog >= limits.backlog) refuse(`${backlog} jobs wait to be written`)
      const waiters = options.databaseWaiters()
      if (waiters >= limits.databaseWaiters) refuse(`${waiters} callers wait for Postgres`)
      if (loopDelayMs >= limits.loopDelayMs) refuse(`the event loop is ${Math.round(loopDelayMs)} ms late`)
    },
    get loopDelayMs() {
      return loopDelayMs
    },
    start: () => {
      if (timer) return
      const resolution = 20
      const samples = monitorEventLoopDelay({ resolution })
      histogram = samples
      samples.enable()
      timer = setInterval(() => {
        // What is measured is the time between two looks, so the time that was to pass is taken off.
        loopDelayMs = Math.max(0, samples.percentile(99) / 1e6 - resolution)
        samples.reset()
      }, sampleMs).unref()
    },
    stop: () => {
      clearInterval(timer)
      timer = undefined
      histogram?.disable()
    },
  }
}

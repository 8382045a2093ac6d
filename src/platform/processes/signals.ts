import type { Clock } from '../../core/clock.ts'

// The only file, besides main.ts, that listens to `process` and ends it.

export interface SignalHandlers {
  /** TERM, INT or QUIT came for the first time. */
  stop(signal: string): void
  /** A second INT came from a terminal: do not wait for jobs. */
  fast(): void
  roll(): void
  quiet(): void
  report(): void
  /** A signal that changes nothing. */
  ignored(signal: string): void
}

export interface SignalOptions {
  clock: Clock
  /** Whether a person at a terminal can have pressed the keys. */
  terminal: boolean
}

const stopSignals = ['SIGTERM', 'SIGINT', 'SIGQUIT'] as const
/** A shell and its parent may both pass on one key press. */
const samePressMs = 300
const fastWithinMs = 5_000

/** Decides what a stop signal means: the first stops, later ones change nothing, except a second INT by hand. */
export function createStopSignals(
  options: SignalOptions,
  handlers: Pick<SignalHandlers, 'stop' | 'fast' | 'ignored'>,
): (signal: string) => void {
  let firstAt: number | undefined
  let firstIntAt: number | undefined
  let hastened = false

  const isFast = (signal: string, now: number): boolean => {
    if (signal !== 'SIGINT' || !options.terminal || hastened || firstIntAt === undefined) return false
    const since = now - firstIntAt
    return since >= samePressMs && since <= fastWithinMs
  }

  return (signal) => {
    const now = options.clock.monotonicMs()
    const fast = isFast(signal, now)
    if (signal === 'SIGINT') firstIntAt ??= now
    if (firstAt === undefined) {
      firstAt = now
      handlers.stop(signal)
    } else if (fast) {
      hastened = true
      handlers.fast()
    } else {
      handlers.ignored(signal)
    }
  }
}

/** Installs the master's signals (INTERFACE: TERM, INT, QUIT, HUP, TSTP, USR2, USR1). */
export function handleSignals(options: SignalOptions, handlers: SignalHandlers): void {
  const onStop = createStopSignals(options, handlers)
  for (const signal of stopSignals) process.on(signal, onStop)
  process.on('SIGHUP', () => handlers.roll())
  for (const signal of ['SIGTSTP', 'SIGUSR2'] as const) process.on(signal, () => handlers.quiet())
  // Node would open its debugger on USR1; a listener takes its place.
  process.on('SIGUSR1', () => handlers.report())
}

/** Installs stop signals alone, for processes that have nothing to roll: the web tier. */
export function handleStopSignals(
  options: SignalOptions,
  handlers: Pick<SignalHandlers, 'stop' | 'fast' | 'ignored'>,
): void {
  const onStop = createStopSignals(options, handlers)
  for (const signal of stopSignals) process.on(signal, onStop)
}

/** A child notes signals and does nothing: its master decides, and tells it by the channel. */
export function noteSignals(note: (signal: string) => void): void {
  for (const signal of [
    ...stopSignals,
    'SIGHUP',
    'SIGTSTP',
    'SIGUSR1',
    'SIGUSR2',
  ] as const satisfies NodeJS.Signals[]) {
    process.on(signal, () => note(signal))
  }
}

/** A child's end of the channel to its master. */
export interface ParentPort {
  /** Resolves when it was handed to the kernel, or cannot be. */
  send(message: unknown): Promise<void>
  onMessage(listener: (message: unknown) => void): void
  /** The master is dead, or was never there. */
  onClosed(listener: () => void): void
}

export function openParentPort(): ParentPort {
  return {
    send: (message) =>
      new Promise((resolve) => {
        if (!process.connected || !process.send) return resolve()
        // Without a callback, a master that died just now would end this process with an error event.
        process.send(message, undefined, undefined, () => resolve())
      }),
    onMessage: (listener) => void process.on('message', listener),
    onClosed: (listener) => {
      if (process.connected) process.on('disconnect', listener)
      else queueMicrotask(listener)
    },
  }
}

/** An error that nobody caught: the state of the process is unknown, so it says why and ends. */
export function endOnUncaught(report: (error: unknown) => void): void {
  const end = (error: unknown): void => {
    report(error)
    process.exit(1)
  }
  process.on('uncaughtException', end)
  process.on('unhandledRejection', end)
}

/** Calls the listener when this process ends by itself, whoever asked for it. Only synchronous work is done then. */
export const onProcessExit = (listener: (code: number) => void): void => void process.on('exit', listener)

export type ExitProcess = (code: number) => void

export const exitProcess: ExitProcess = (code) => process.exit(code)

import { Worker } from 'node:worker_threads'
import { beatMs } from './messages.ts'

export interface WatchdogOptions {
  /** Silence of the event loop after which its stack is logged, ms. */
  watchdogMs: number
  logLevel: string
  /** Fields of the log line that say who it is. */
  identity: Record<string, string | number>
}

export interface Watchdog {
  stop(): Promise<void>
}

/** What the thread is given. */
export interface WatchdogData extends WatchdogOptions {
  /** One Int32 that the event loop counts up. */
  beats: SharedArrayBuffer
  parentPid: number
}

/**
 * A thread that looks after the event loop of this process. A blocked loop can neither run a signal handler
 * nor send a message, so its stack has to be taken from beside it.
 */
export function startWatchdog(options: WatchdogOptions): Watchdog {
  const beats = new SharedArrayBuffer(4)
  const counter = new Int32Array(beats)
  const beating = setInterval(() => Atomics.add(counter, 0, 1), beatMs(options.watchdogMs))
  beating.unref()
  const data: WatchdogData = { ...options, beats, parentPid: process.ppid }
  const thread = new Worker(new URL('./watchdog-thread.ts', import.meta.url), {
    workerData: data,
    name: 'watchdog',
    resourceLimits: { maxOldGenerationSizeMb: 32 },
  })
  thread.unref()
  // Without it the process goes on all the same; the master still notices silence.
  thread.on('error', () => undefined)
  return {
    stop: async () => {
      clearInterval(beating)
      await thread.terminate()
    },
  }
}

import type { Totals } from '../metric-totals.ts'

/** What the master tells a child, by IPC. docs/protocols/worker-stop.md has the words. */
export type Command =
  /** The runner is recorded: take jobs. */
  | { type: 'start' }
  /** Take nothing new, stay up. */
  | { type: 'quiet' }
  /** Take nothing new, and end when nothing is left; no deadline. */
  | { type: 'retire' }
  /** As retire, and iterations stop at their next checkpoint. */
  | { type: 'drain' }
  /** Send a beat now. Its answer to every other command, too. */
  | { type: 'tell' }
  /** Abort and hand back within `graceMs`, then end. */
  | { type: 'interrupt'; cause: EndCause; reason: string; graceMs: number }

/** Why the master ends a child before it is done: a deadline, or that it does not answer. */
export type EndCause = 'stop' | 'roll' | 'boot' | 'watchdog'

/** What a child tells the master. */
export type Report =
  | { type: 'ready'; queues: string[] }
  /** After `start`: the queue engine does not answer, and it goes on asking. */
  | WaitingReport
  /** After `start`: it fetches. */
  | { type: 'started' }
  | { type: 'beat'; active: ActiveJob[]; rssBytes: number; loopDelayMs: number }
  /** What it counted since it last told; nothing is told twice, so the master only adds. */
  | { type: 'counts'; increments: Totals }
  /** It ends by itself now, holding nothing. One that ends without having said so was ended by a handler. */
  | { type: 'left' }
  /** It cannot start; it ends right after. */
  | { type: 'failed'; code: string; message: string }

export interface WaitingReport {
  type: 'waiting'
  /** The engine's name, for people. */
  for: string
  reason: string
}

export interface ActiveJob {
  id: string
  name: string
  /** How long it has been running, ms. */
  forMs: number
}

/** Time between two beats: a second, or less when a blocked loop is to be noticed sooner. */
export const beatMs = (watchdogMs: number): number => Math.max(20, Math.min(1_000, watchdogMs / 4))

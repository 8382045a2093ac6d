import { type Logger, pino } from 'pino'

/** Structured log lines on standard output. Log ids, codes and durations; never a payload, a key or a token. */
export type Log = Logger

export interface LogOptions {
  level: string
  /** Which process speaks: web, worker, child, … */
  process: string
}

export function createLog(options: LogOptions): Log {
  return pino({
    level: options.level,
    base: { process: options.process },
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
  })
}

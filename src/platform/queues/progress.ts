/** Throttles what a job shows of itself: the newest value wins, and the last one is always written. */
export interface Progress {
  set(value: unknown, nowMs: number): void
  /** Writes what is not written yet, if it is time. Called now and then. */
  flush(nowMs: number): void
  /** Writes what is left, after the write under way. Never rejects. */
  finish(): Promise<void>
}

/** Longest pause of a watcher: four writes a second. */
const everyMs = 250

/** @param write never rejects; it must not be called again before it is done, or values would change places */
export function createProgress(write: (value: unknown) => Promise<void>): Progress {
  let latest: unknown
  let dirty = false
  let writtenMs = Number.NEGATIVE_INFINITY
  let writing: Promise<void> | undefined

  const send = (): Promise<void> => {
    dirty = false
    writing = write(latest).finally(() => {
      writing = undefined
    })
    return writing
  }
  const flush = (nowMs: number): void => {
    if (!dirty || writing || nowMs - writtenMs < everyMs) return
    writtenMs = nowMs
    void send()
  }
  return {
    set: (value, nowMs) => {
      latest = value
      dirty = true
      flush(nowMs)
    },
    flush,
    finish: async () => {
      await writing
      if (dirty) await send()
    },
  }
}

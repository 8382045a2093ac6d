/**
 * Finds the moment in which a stream may be ended without cutting what is being said. What its target has sent just before
 * must still arrive: a device that comes back without a cursor confirms with that what was sent to it.
 */
export interface Lull {
  /** From now on it is looked for. May be repeated. */
  seek(): void
  /** Something was passed on, or could be: look again. */
  note(): void
  /** It was sought for so long that the next whole message will do. */
  readonly overdue: boolean
  /** The stream has ended otherwise. */
  cancel(): void
}

export interface LullOptions {
  /** Nothing is half said, and nothing waits to be passed on. */
  isWhole(): boolean
  /** Called once. `whole`: as it should be; else the time was up. */
  onLull(whole: boolean): void
}

/** Silence that makes a lull, ms; how long it is sought; and until when the end of a message will do after that. */
const quietMs = 50
const overdueMs = 2_500
const limitMs = 5_000

export function createLull({ isWhole, onLull }: LullOptions): Lull {
  let sought = false
  let overdue = false
  let over = false
  const timers: NodeJS.Timeout[] = []
  let quiet: NodeJS.Timeout | undefined

  const end = (whole: boolean): void => {
    if (over) return
    cancel()
    onLull(whole)
  }
  const cancel = (): void => {
    over = true
    clearTimeout(quiet)
    for (const timer of timers) clearTimeout(timer)
  }
  const note = (): void => {
    if (!sought || over) return
    clearTimeout(quiet)
    if (overdue && isWhole()) return end(true)
    quiet = setTimeout(() => isWhole() && end(true), quietMs)
  }

  return {
    seek: () => {
      if (sought) return
      sought = true
      timers.push(
        setTimeout(() => {
          overdue = true
          note()
        }, overdueMs),
        setTimeout(() => end(false), limitMs),
      )
      note()
    },
    note,
    get overdue() {
      return overdue
    },
    cancel,
  }
}

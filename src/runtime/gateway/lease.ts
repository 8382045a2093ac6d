import type { Clock } from '../../core/clock.ts'

/** A WebSocket or an event stream that is open. */
export interface OpenStream {
  /** Whether it belongs to a session. One that does not gains nothing by staying on an old revision. */
  readonly pinned: boolean
  /** Ends it in order, as soon as the protocol lets it. */
  close(): void
}

/** What holds a target. */
export interface Lease {
  /** A request began. @returns to be called once at its end */
  begin(): () => void
  /** @returns to be called once at its end */
  hold(stream: OpenStream): () => void
  /** The session has sent something, or was pinned here. */
  seen(session: string): void
  /** The session is over: the target said so, or it went elsewhere. */
  ended(session: string): void
  /** For as long as a session may be silent nobody can say who is here: keep. */
  forget(): void
  readonly inFlight: number
  readonly streams: readonly OpenStream[]
  /** Sessions seen within the idle time. */
  readonly sessions: number
  /** Until when nobody can say who is here, monotonic ms; undefined when everybody is known. */
  readonly unknownUntilMs: number | undefined
  readonly empty: boolean
}

export interface LeaseOptions {
  clock: Clock
  /** How long a session counts after it was last seen, ms. */
  idleMs: number
  mostSessions?: number
}

/** What is counted at most; a client that throws its cookies away is a new session with every page. */
const defaultMost = 100_000

export function createLease({ clock, idleMs, mostSessions = defaultMost }: LeaseOptions): Lease {
  /** When each was last seen, the longest silent first. */
  const sessions = new Map<string, number>()
  const streams = new Set<OpenStream>()
  let inFlight = 0
  let unknownUntilMs = Number.NEGATIVE_INFINITY

  const prune = (): void => {
    const silentSince = clock.monotonicMs() - idleMs
    for (const [session, seenAt] of sessions) {
      if (seenAt > silentSince) return
      sessions.delete(session)
    }
  }
  const forget = (): void => {
    unknownUntilMs = clock.monotonicMs() + idleMs
  }
  const isUnknown = (): boolean => clock.monotonicMs() < unknownUntilMs
  const once = (work: () => void): (() => void) => {
    let done = false
    return () => {
      if (!done) work()
      done = true
    }
  }

  return {
    begin: () => {
      inFlight++
      return once(() => inFlight--)
    },
    hold: (stream) => {
      streams.add(stream)
      return once(() => streams.delete(stream))
    },
    seen: (session) => {
      // Moved to the end.
      sessions.delete(session)
      if (sessions.size >= mostSessions) prune()
      if (sessions.size < mostSessions) sessions.set(session, clock.monotonicMs())
      else forget()
    },
    ended: (session) => void sessions.delete(session),
    forget,
    get inFlight() {
      return inFlight
    },
    get streams() {
      return [...streams]
    },
    get sessions() {
      prune()
      return sessions.size
    },
    get unknownUntilMs() {
      return isUnknown() ? unknownUntilMs : undefined
    },
    get empty() {
      prune()
      return inFlight === 0 && streams.size === 0 && sessions.size === 0 && !isUnknown()
    },
  }
}

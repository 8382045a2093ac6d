/**
 * What a consumer gives to the engine and gets from it in one command: entries that are over against entries that
 * wait. BullMQ has a command for each entry; docs/decisions/0007-exchange.md says what that costs.
 */
export interface Exchange {
  ended: Ended[]
  /** Most entries to take. */
  take: number
  /** Begins the lock token of each entry taken; no two exchanges may have the same. */
  tokenBase: string
  epochMs: number
}

export interface Ended {
  id: string
  /** The lock that it is held by. */
  token: string
  /** JSON of the result, for an entry that stays to be looked at; without it the entry vanishes. */
  kept?: string
}

/** An entry that is active now, held by `token`. */
export interface Taken {
  id: string
  name: string
  token: string
  /** JSON of what it carries; '{}' for an entry of a row. */
  data: string
  attempts: number
  attemptsMade: number
  stalls: number
}

export interface Exchanged {
  /** Ended entries that the engine did not take back, with BullMQ's code for the reason. */
  failed: { id: string; code: number }[]
  taken: Taken[]
  /** Entries whose content the engine threw away. They are gone now. */
  husks: string[]
  /**
   * What there is beyond: `some` there may be more; `none`; `unclear` when BullMQ has to be asked itself, since the
   * queue is paused or limited, or delayed entries are due.
   */
  left: 'some' | 'none' | 'unclear'
  /** With `none`: when the next delayed entry is due, epoch ms; 0 when there is none. */
  dueAt: number
}

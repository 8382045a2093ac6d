import { messageOf } from '../../core/errors.ts'
import type { Log } from '../../platform/log.ts'

export interface DutyOptions {
  /** Forks. */
  begin(): void
  /** Ends the children; resolves when all are gone. Aborted: a stop goes on with them. */
  end(leave: AbortSignal): Promise<void>
  log: Log
}

/** Turns the children of a worker on and off as its site takes work or not, one after the other. */
export interface Duty {
  readonly isOn: boolean
  /** What is wanted from now on. A turn that comes during another one follows it. */
  turn(on: boolean): void
  /** Nothing is turned any more. */
  leave(): void
}

export function createDuty({ begin, end, log }: DutyOptions): Duty {
  const left = new AbortController()
  let wanted = false
  let isOn = false
  let ending = false

  const settle = (): void => {
    if (ending || left.signal.aborted || wanted === isOn) return
    isOn = wanted
    if (wanted) return begin()
    ending = true
    end(left.signal)
      .catch((error: unknown) => log.error({ reason: messageOf(error) }, 'standing down failed'))
      .finally(() => {
        ending = false
        settle()
      })
  }

  return {
    get isOn() {
      return isOn
    },
    turn: (on) => {
      wanted = on
      settle()
    },
    leave: () => left.abort(),
  }
}

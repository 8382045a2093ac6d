import { messageOf } from '../../core/errors.ts'
import type { Log } from '../../platform/log.ts'
import type { ListenRows } from './listen-rows.ts'

/** What of this process's answers has left, on its way into the rows: step 3 of docs/protocols/push-alarm.md. */
export interface AnsweredMarks {
  /** Never rejects: a mark that is lost makes the rows come a second time. */
  mark(device: string, listen: string, upTo: number): Promise<void>
  /** Resolves when no mark of these devices is under way: a listen that comes here must find them. */
  settled(devices: readonly string[]): Promise<void>
}

export function createAnsweredMarks(rows: ListenRows, log: Log): AnsweredMarks {
  const underWay = new Map<string, Promise<void>>()
  return {
    mark: (device, listen, upTo) => {
      const before = underWay.get(device)
      const marking = Promise.all([before, rows.answered({ device, listen, upTo })])
        .catch((error: unknown) =>
          log.debug({ reason: messageOf(error) }, 'what was delivered is not marked, and may come again'),
        )
        .then(() => {
          if (underWay.get(device) === marking) underWay.delete(device)
        })
      underWay.set(device, marking)
      return marking
    },
    settled: async (devices) => {
      const marks = devices.flatMap((device) => underWay.get(device) ?? [])
      if (marks.length > 0) await Promise.all(marks)
    },
  }
}

import { PAYLOAD_LOST } from '../../platform/queues/errors.ts'
import type { AnswerRoom } from './answer-room.ts'
import type { FetchedRow } from './fetch-rows.ts'
import type { ListenRows } from './listen-rows.ts'
import type { PushPayloads } from './payloads.ts'

/** Most bytes of payloads in one answer, unless its first one alone has more. The rest follows with the next. */
const maxAnswerBytes = 4_194_304

export interface AnswerRows {
  /** In order, their payloads in place. */
  rows: FetchedRow[]
  /** Why the rest is left out: no room in this answer, or its payload cannot be read now. Undefined: nothing is. */
  left: 'full' | 'unavailable' | undefined
  /** The payload that cannot be read now, as its row names it. */
  held?: string | undefined
}

export interface Answered {
  /** A list for each device. */
  answers: AnswerRows[]
  /** Gives back the room that the payloads take; to be called when they have left. */
  leave(): void
}

export interface AnswerSources {
  payloads: PushPayloads
  /** Where large payloads are read that stayed in their rows. */
  stored: ListenRows['stored']
}

/** What of the rows that were fetched, a list for each device, goes into one answer. */
export async function answerRows(
  fetched: FetchedRow[][],
  sources: AnswerSources,
  takeRoom: (bytes: number) => ReturnType<AnswerRoom['take']>,
): Promise<Answered> {
  const { fitting, bytes } = fittingRows(fetched, sources.payloads)
  const leave = await takeRoom(bytes)
  // All of it comes again, with the next look at the latest.
  if (!leave)
    return { answers: fetched.map(() => ({ rows: [], left: 'unavailable' })), leave: () => undefined }
  try {
    const answers = fitting.map(async (rows, index): Promise<AnswerRows> => {
      const filled = await fill(rows, sources)
      const held = rows[filled.length]?.notification.payload
      if (filled.length < rows.length) return { rows: filled, left: 'unavailable', held }
      return { rows: filled, left: rows.length < (fetched[index]?.length ?? 0) ? 'full' : undefined }
    })
    return { answers: await Promise.all(answers), leave }
  } catch (error) {
    leave()
    throw error
  }
}

function fittingRows(
  fetched: FetchedRow[][],
  payloads: PushPayloads,
): { fitting: FetchedRow[][]; bytes: number } {
  let room = maxAnswerBytes
  const fits = ({ notification: { payload }, storedBytes }: FetchedRow): boolean => {
    const size = storedBytes ?? (payload === undefined ? 0 : payloads.sizeOf(payload))
    const fitting = size <= room || room === maxAnswerBytes
    if (fitting) room -= size
    return fitting
  }
  const fitting = fetched.map((rows) => {
    const end = rows.findIndex((row) => !fits(row))
    return end < 0 ? rows : rows.slice(0, end)
  })
  return { fitting, bytes: maxAnswerBytes - room }
}

/** Puts payloads in their places. Ends before the first that cannot be read now: a cursor cannot leave one out. */
async function fill(rows: FetchedRow[], sources: AnswerSources): Promise<FetchedRow[]> {
  const filled = await Promise.all(rows.map((row) => fillOne(row, sources)))
  const end = filled.indexOf(undefined)
  return (end < 0 ? filled : filled.slice(0, end)) as FetchedRow[]
}

async function fillOne(row: FetchedRow, sources: AnswerSources): Promise<FetchedRow | undefined> {
  const { payload, ...rest } = row.notification
  if (payload === undefined && row.storedBytes === undefined) return row
  try {
    const kept = payload ?? (await sources.stored({ device: rest.device, push: rest.id }))
    // Gone since it was fetched: so is the row, and it does not come again.
    if (kept === undefined) return undefined
    return { ...row, notification: { ...rest, payload: await sources.payloads.redeem(kept) } }
  } catch (error) {
    // For ever: the device learns that there was something, and what comes after it is not held up.
    if (PAYLOAD_LOST.is(error)) return { ...row, notification: { ...rest, payloadLost: true } }
    return undefined
  }
}

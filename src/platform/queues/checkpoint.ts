import { messageOf } from '../../core/errors.ts'
import { JOB_CHECKPOINT_INVALID } from './errors.ts'
import { toJson } from './ledger-json.ts'

/** What stands in the row: the handler's own checkpoint, and how many items each loop over a plain source has had. */
export interface SavedCheckpoint {
  value?: unknown
  at?: number[]
}

const maxBytes = 1_048_576

export function readCheckpoint(stored: unknown): SavedCheckpoint {
  return typeof stored === 'object' && stored !== null ? stored : {}
}

/** @throws JOB_CHECKPOINT_INVALID for what JSON cannot carry or what is over 1 MiB */
export function assertCheckpoint(saved: SavedCheckpoint): void {
  let text: string
  try {
    text = toJson(saved, 'checkpoint')
  } catch (error) {
    throw JOB_CHECKPOINT_INVALID({ reason: messageOf(error) }, { cause: error })
  }
  if (Buffer.byteLength(text) > maxBytes) {
    throw JOB_CHECKPOINT_INVALID({ reason: `it is over ${maxBytes} bytes of JSON` })
  }
}

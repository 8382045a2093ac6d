import type { IncomingMessage } from 'node:http'
import { messageOf } from '../../core/errors.ts'
import { BODY_TOO_LARGE } from '../../domain/bodies/errors.ts'
import { REQUEST_MALFORMED, REQUEST_TIMED_OUT } from './errors.ts'

export interface ReadLimits {
  bytes: number
  /** From the first byte asked for to the last one here, ms. */
  ms: number
}

/**
 * Collects a small body. Calls back once: with the bytes, or with why there are none. The limit of time is here and
 * not on the server, since an upload of a gigabyte may take long and a JSON body may not.
 */
export function readBytes(
  message: IncomingMessage,
  limits: ReadLimits,
  done: (error: Error | null, bytes?: Buffer) => void,
): void {
  const chunks: Buffer[] = []
  let size = 0
  if (Number(message.headers['content-length']) > limits.bytes) {
    done(BODY_TOO_LARGE({ maxBytes: limits.bytes }))
    return
  }

  const settle = (error: Error | null): void => {
    clearTimeout(timer)
    message.off('data', onData).off('end', onEnd).off('error', onError).off('close', onCut)
    if (error) {
      // An error that comes after this has nobody left to hear it.
      message.on('error', () => undefined)
      done(error)
    } else done(null, chunks.length === 1 ? chunks[0] : Buffer.concat(chunks, size))
  }
  const onData = (chunk: Buffer): void => {
    size += chunk.length
    if (size > limits.bytes) settle(BODY_TOO_LARGE({ maxBytes: limits.bytes }))
    else chunks.push(chunk)
  }
  const onEnd = (): void => settle(null)
  const onError = (error: Error): void => settle(REQUEST_MALFORMED({ reason: messageOf(error) }))
  const onCut = (): void => settle(REQUEST_MALFORMED({ reason: 'the connection ended within the body' }))
  const timer = setTimeout(() => settle(REQUEST_TIMED_OUT({ limitMs: limits.ms })), limits.ms)
  message.on('data', onData).on('end', onEnd).on('error', onError).on('close', onCut)
}

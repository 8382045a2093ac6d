import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'

export interface LingerLimits {
  /** Most bytes that are read and thrown away. */
  bytes: number
  /** Longest time for all of it, ms. */
  ms: number
  /** Longest wait for the next byte, ms. */
  idleMs: number
}

/** Fifty MiB sent by mistake are answered in words; whoever sends more is cut. */
export const lingerLimits: LingerLimits = { bytes: 67_108_864, ms: 20_000, idleMs: 5_000 }

/**
 * An answer to a request that is still being sent. To close the connection with bytes in it that nobody has read would
 * reset it, and a client that writes before it reads would never see why. So the rest is read and thrown away, up to
 * a limit, while the answer is out already for those who look.
 */
export function lingeringAnswer(
  text: string,
  message: IncomingMessage,
  limits: LingerLimits = lingerLimits,
): Readable {
  const answerThenWait = async function* (): AsyncGenerator<Buffer> {
    yield Buffer.from(text)
    await drained(message, limits)
  }
  return Readable.from(answerThenWait(), { objectMode: false, highWaterMark: 1 })
}

function drained(message: IncomingMessage, { bytes, ms, idleMs }: LingerLimits): Promise<void> {
  if (message.complete || message.destroyed) return Promise.resolve()
  return new Promise((resolve) => {
    let left = bytes
    const end = (): void => {
      clearTimeout(whole)
      clearTimeout(idle)
      message.off('data', onData).off('end', end).off('close', end)
      resolve()
    }
    const onData = (chunk: Buffer): void => {
      left -= chunk.length
      idle.refresh()
      if (left < 0) end()
    }
    const whole = setTimeout(end, ms)
    const idle = setTimeout(end, idleMs)
    message.on('data', onData).on('end', end).on('close', end).resume()
  })
}

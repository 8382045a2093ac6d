/** Follows the frames of one direction of a WebSocket (RFC 6455, 5.2), without their contents. */
export interface FrameTracker {
  /** @returns behind which of the bytes the last frame ends that ends in them; undefined when none does */
  feed(bytes: Uint8Array): number | undefined
  /** No frame is half through: another one may be put in between. */
  readonly between: boolean
  /** A Close frame has begun: nothing may follow it. */
  readonly closed: boolean
}

const closeOpcode = 8

export function createFrameTracker(): FrameTracker {
  /** Of the head of a frame that is not complete. */
  let head: number[] = []
  let left = 0n
  let closed = false

  const readHead = (byte: number): void => {
    head.push(byte)
    const length = headLength(head)
    if (length === undefined || head.length < length) return
    closed ||= ((head[0] ?? 0) & 0x0f) === closeOpcode
    left = payloadLength(head)
    head = []
  }
  const take = (available: number): number => {
    const taken = BigInt(available) < left ? BigInt(available) : left
    left -= taken
    return Number(taken)
  }
  const isBetween = (): boolean => head.length === 0 && left === 0n

  return {
    feed: (bytes) => {
      let end: number | undefined
      for (let at = 0; at < bytes.length; ) {
        if (left > 0n) {
          at += take(bytes.length - at)
        } else {
          readHead(bytes[at] ?? 0)
          at++
        }
        if (isBetween()) end = at
      }
      return end
    },
    get between() {
      return isBetween()
    },
    get closed() {
      return closed
    },
  }
}

const shortLength = (head: readonly number[]): number => (head[1] ?? 0) & 0x7f

/** Bytes of a head, its mask included; undefined when that cannot be told yet. */
function headLength(head: readonly number[]): number | undefined {
  if (head.length < 2) return undefined
  const extended = shortLength(head) === 127 ? 8 : shortLength(head) === 126 ? 2 : 0
  const mask = ((head[1] ?? 0) & 0x80) === 0 ? 0 : 4
  return 2 + extended + mask
}

function payloadLength(head: readonly number[]): bigint {
  const short = shortLength(head)
  if (short < 126) return BigInt(short)
  return head.slice(2, short === 126 ? 4 : 10).reduce((sum, byte) => sum * 256n + BigInt(byte), 0n)
}

/** A Close frame as a server sends it: unmasked. The reason has at most 123 bytes. */
export function closeFrame(code: number, reason: string): Buffer {
  const text = Buffer.from(reason)
  const frame = Buffer.alloc(4 + text.length)
  frame[0] = 0x80 | closeOpcode
  frame[1] = 2 + text.length
  frame.writeUInt16BE(code, 2)
  text.copy(frame, 4)
  return frame
}

import fc from 'fast-check'
import { expect, it } from 'vitest'
import { closeFrame, createFrameTracker } from '../../../src/runtime/gateway/websocket-frames.ts'

/** A frame as RFC 6455, 5.2 has it. */
function frame(opcode: number, length: number, masked: boolean): Buffer {
  const extended = length < 126 ? 0 : length < 65_536 ? 2 : 8
  const head = Buffer.alloc(2 + extended + (masked ? 4 : 0))
  head[0] = 0x80 | opcode
  head[1] = (masked ? 0x80 : 0) | (extended === 0 ? length : extended === 2 ? 126 : 127)
  if (extended === 2) head.writeUInt16BE(length, 2)
  if (extended === 8) head.writeBigUInt64BE(BigInt(length), 2)
  // Bytes that would be a Close frame if they were taken for a head.
  return Buffer.concat([head, Buffer.alloc(length, 0x88)])
}

const frames = fc.array(
  fc.record({
    length: fc.oneof(fc.nat(200), fc.constantFrom(0, 125, 126, 65_535, 65_536, 70_000)),
    masked: fc.boolean(),
    opcode: fc.constantFrom(0, 1, 2, 9, 10),
  }),
  { minLength: 1, maxLength: 6 },
)

it('knows between which bytes frames end, however they are cut', () => {
  fc.assert(
    fc.property(frames, fc.array(fc.integer({ min: 1, max: 40_000 }), { minLength: 1 }), (specs, sizes) => {
      const each = specs.map(({ opcode, length, masked }) => frame(opcode, length, masked))
      const all = Buffer.concat(each)
      const ends = new Set<number>()
      each.reduce((sum, bytes) => (ends.add(sum + bytes.length), sum + bytes.length), 0)
      const tracker = createFrameTracker()
      for (let at = 0, turn = 0; at < all.length; turn++) {
        const chunk = all.subarray(at, at + (sizes[turn % sizes.length] ?? 1))
        const end = tracker.feed(chunk)
        const inside = [...ends].filter((each_) => each_ > at && each_ <= at + chunk.length)
        expect(end).toBe(inside.length > 0 ? Math.max(...inside) - at : undefined)
        at += chunk.length
        expect(tracker.between).toBe(ends.has(at))
        expect(tracker.closed).toBe(false)
      }
    }),
    { numRuns: 50 },
  )
})

it('sees a Close frame from its first bytes on', () => {
  const tracker = createFrameTracker()
  tracker.feed(frame(1, 3, false))
  tracker.feed(closeFrame(1012, 'service restart').subarray(0, 2))
  expect(tracker.closed).toBe(true)
})

it('closes with the code and the reason', () => {
  expect(closeFrame(1012, 'x')).toEqual(Buffer.from([0x88, 3, 0x03, 0xf4, 0x78]))
})

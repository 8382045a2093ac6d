/** Of a large answer: the bytes that are handed to a connection at once. */
export const sliceBytes = 262_144

/** A large text in pieces, as UTF-8; a small one as it is. */
export function* slicesOf(text: string): Generator<string | Buffer> {
  if (text.length <= sliceBytes) return yield text
  const bytes = Buffer.from(text)
  for (let start = 0; start < bytes.length; start += sliceBytes)
    yield bytes.subarray(start, start + sliceBytes)
}

import sharp, { type OutputInfo } from 'sharp'
import { Type } from 'typebox'
import { messageOf } from '../src/core/errors.ts'
import type { Bodies } from '../src/domain/bodies/bodies.ts'
import { defineJob, done } from '../src/platform/queues/job.ts'
import type { Deps } from './deps.ts'
import { PHOTO_INVALID } from './errors.ts'

interface Thumbnail {
  width: number
  height: number
  body: string
}

const maxPhotoBytes = 64 * 1_048_576
/** Some 13 times what a camera phone makes. A small file may unpack to far more, which would end the process. */
const maxPixels = 150_000_000
const timeoutSeconds = 60

// One thread an image: the worker's other jobs want the cores too.
sharp.concurrency(1)
sharp.cache(false)
// Formats that are programs (SVG, PDF, …) may read files and reach out; nobody's photo is one.
sharp.block({ operation: ['VipsForeignLoad'] })
sharp.unblock({
  operation: ['Jpeg', 'Png', 'Webp', 'Nsgif', 'Tiff', 'Heif'].map((each) => `VipsForeignLoad${each}`),
})

/**
 * Makes thumbnails of a photo, upright as its EXIF says, JPEG (PNG where there is transparency). A width beyond the
 * photo's gives the photo's own: the answer says which width came out. `thumbnails` has the order of `widths`.
 */
export const photo = defineJob({
  name: 'photo',
  payload: Type.Object({
    body: Type.String(),
    widths: Type.Array(Type.Integer({ minimum: 1, maximum: 8_192 }), { minItems: 1, maxItems: 20 }),
  }),
  async run({ body, widths }, { bodies }: Deps, ctx) {
    const original = await readPhoto(bodies, body, ctx.signal)
    const thumbnails = [...((ctx.checkpoint as Thumbnail[] | undefined) ?? [])]
    for await (const width of ctx.iterate(widths, { save: () => thumbnails, everyMs: 0 })) {
      const { data, info } = await shrink(original, width)
      const { id } = await bodies.put(oneChunk(data), { signal: ctx.signal })
      thumbnails.push({ width: info.width, height: info.height, body: id })
      ctx.progress(thumbnails.length)
    }
    return done({ thumbnails })
  },
})

async function readPhoto(bodies: Bodies, body: string, signal: AbortSignal): Promise<Buffer> {
  const { size } = await bodies.stat(body)
  if (size > maxPhotoBytes)
    throw PHOTO_INVALID({ reason: `it has ${size} bytes, more than ${maxPhotoBytes}` })
  const { stream } = await bodies.get(body, { signal })
  return Buffer.concat((await stream.toArray({ signal })) as Buffer[])
}

async function shrink(original: Buffer, width: number): Promise<{ data: Buffer; info: OutputInfo }> {
  try {
    const image = sharp(original, { limitInputPixels: maxPixels, failOn: 'error' })
    const { hasAlpha } = await image.metadata()
    const small = image
      .timeout({ seconds: timeoutSeconds })
      .autoOrient()
      .resize({ width, withoutEnlargement: true })
    return await (hasAlpha ? small.png() : small.jpeg({ quality: 80 })).toBuffer({ resolveWithObject: true })
  } catch (error) {
    const reason = messageOf(error)
    // The machine was busy; that says nothing of the photo, so it is tried again.
    if (reason.includes('timeout')) throw error
    throw PHOTO_INVALID({ reason }, { cause: error })
  }
}

async function* oneChunk(data: Uint8Array): AsyncGenerator<Uint8Array> {
  yield data
}

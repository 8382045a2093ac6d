import { tmpdir } from 'node:os'
import { describe, expect, it, onTestFinished } from 'vitest'
import { createSystemClock } from '../../../../src/core/clock.ts'
import { sha256 } from '../../../../src/core/digest.ts'
import { createS3Store } from '../../../../src/domain/bodies/stores/s3.ts'
import { type BodyStorePlace, exerciseBodyStore, sourceOf } from '../../../contracts/body-store.ts'
import { type S3Server, startS3Server } from '../../../support/s3-server.ts'

const clock = createSystemClock()
const storeOn = (server: S3Server, change: Partial<Parameters<typeof createS3Store>[0]> = {}) => {
  const { endpoint, bucket, credentials } = server
  const store = createS3Store({
    endpoint,
    bucket,
    credentials,
    clock,
    prefix: 'site (main)/a',
    timeoutMs: 2_000,
    spoolFolder: tmpdir(),
    ...change,
  })
  onTestFinished(() => store.close())
  return store
}

const place = async (server: S3Server): Promise<BodyStorePlace> => {
  return {
    store: storeOn(server),
    again: async () => storeOn(server),
    plant: async (id, bytes) => {
      server.objects.set(`site (main)/a/bodies/${id}`, { bytes: Buffer.from(bytes), at: new Date() })
    },
    takeAway: () => server.stop(),
    swap: async () => {
      const away = [...server.objects]
      server.objects.clear()
      return async () => {
        server.objects.clear()
        for (const [key, object] of away) server.objects.set(key, object)
      }
    },
    release: () => server.stop(),
  }
}

exerciseBodyStore('an S3-compatible service', async () => place(await startS3Server()))

describe('an S3-compatible service', () => {
  const start = async (): Promise<S3Server> => {
    const server = await startS3Server()
    onTestFinished(() => server.stop())
    return server
  }

  it('that refuses the key is unavailable, and does not lack bodies', async () => {
    const server = await start()
    const id = sha256('x')
    await storeOn(server).put(id, sourceOf(Buffer.from('x')))
    const store = storeOn(server, { credentials: { ...server.credentials, secretAccessKey: 'wrong' } })
    await expect(store.open(id)).rejects.toMatchObject({ code: 'BODY_UNAVAILABLE' })
    await expect(store.list(undefined, 1)).rejects.toMatchObject({ code: 'BODY_UNAVAILABLE' })
  })

  it('without the bucket is unavailable, and does not lack bodies', async () => {
    const store = storeOn(await start(), { bucket: 'other' })
    await expect(store.open(sha256('x'))).rejects.toMatchObject({ code: 'BODY_UNAVAILABLE' })
  })

  it('that does not tell the size with a refused range gives an empty slice all the same', async () => {
    const server = await startS3Server({ tellsSize: false })
    onTestFinished(() => server.stop())
    const store = storeOn(server)
    const id = sha256('seven b')
    await store.put(id, sourceOf(Buffer.from('seven b')))
    for (const slice of [{ start: 3, end: 3 }, { start: 7 }]) {
      const { size, stream } = await store.open(id, slice)
      expect([size, await stream.toArray()]).toEqual([7, []])
    }
  })

  it('does not take bytes that are not those of the id', async () => {
    const server = await start()
    const store = storeOn(server)
    await expect(store.put(sha256('right'), sourceOf(Buffer.from('wrong')))).rejects.toMatchObject({
      code: 'BODY_UNAVAILABLE',
      message: expect.stringContaining('XAmzContentSHA256Mismatch'),
    })
    expect([...server.objects.keys()].filter((key) => key.includes('bodies/'))).toEqual([])
  })
})

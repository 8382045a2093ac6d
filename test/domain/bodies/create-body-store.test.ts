import { describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createBodyStore, createBodyStores } from '../../../src/domain/bodies/create-body-store.ts'

const clock = createSystemClock()

describe('a store of bodies by its URL', () => {
  it.each([
    ['file:/var/bodies', 'file:/var/bodies'],
    ['file:///var/my%20bodies', 'file:/var/my bodies'],
    ['file:relative', `file:${process.cwd()}/relative`],
    ['webdav+http://user:pass@host:8080/dav/', 'webdav+http://host:8080/dav'],
    ['webdav+https://host/dav', 'webdav+https://host/dav'],
    [
      's3://KEY:se%2Fcret@s3.example.com/bucket/some/prefix?region=eu-central-1',
      's3://s3.example.com/bucket/some/prefix',
    ],
    ['s3://KEY:secret@127.0.0.1:9000/bucket?tls=off', 's3://127.0.0.1:9000/bucket'],
  ])('%s is named without its secrets', async (url, name) => {
    const store = createBodyStore(url, clock)
    expect(store.name).toBe(name)
    await store.close()
  })

  it.each([
    ['ftp://user:secret@host/x', /must begin with/],
    ['nothing', /must begin with/],
    ['file:', /names no folder/],
    ['webdav+http://', /no URL/],
    ['s3://KEY:secret@host', /names no bucket/],
    ['s3://host/bucket', /KEY:SECRET@/],
  ])('%s is refused with the reason, without its secrets', (url, reason) => {
    const refused = (): unknown => createBodyStore(url, clock)
    expect(refused).toThrow(reason)
    expect(refused).not.toThrow(/secret/)
  })

  it('may not be named twice, since two copies in one place are one', () => {
    expect(() => createBodyStores(['file:/a', 'file:/a/'], clock)).toThrow(/named twice/)
  })

  it('is one of two folders when none is configured', () => {
    expect(createBodyStores([], clock).map(({ name }) => name)).toEqual([
      `file:${process.cwd()}/.baton/bodies-a`,
      `file:${process.cwd()}/.baton/bodies-b`,
    ])
  })
})

import { describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { canonicalUrl, maskUrl, openStore } from '../../../src/domain/state/open-store.ts'
import { connect } from '../../support/state.ts'

const open = (url: string) => openStore(url, { clock: createSystemClock(), connect })

describe('the URL of a store', () => {
  it.each([
    ['file:/srv/states/', 'file:/srv/states'],
    ['file:///srv/states', 'file:/srv/states'],
    ['file:/srv/with%20space', 'file:/srv/with space'],
    ['file:/srv/100%25', 'file:/srv/100%'],
    ['file:/srv/100%/x', 'file:/srv/100%/x'],
    ['file:/srv/line\nbreak', 'file:/srv/line\nbreak'],
    ['file:/', 'file:/'],
  ])('%j names the folder of %j', (url, place) => {
    expect(open(url).place).toBe(place)
    // However it is spelled, it is the same store when it is opened again.
    expect(open(canonicalUrl(url)).place).toBe(place)
    expect(canonicalUrl(canonicalUrl(url))).toBe(canonicalUrl(url))
  })

  it.each(['ftp://host/x', 'file:relative', 'postgres', 'zpush+mysql://host/x', '', 'postgres://'])(
    '%j is refused',
    (url) => {
      expect(() => open(url)).toThrow(expect.objectContaining({ code: 'STATE_URL_INVALID' }))
    },
  )

  it('is never shown with its password', () => {
    expect(maskUrl('zpush+postgres://me:se:cr%40et@host:5432/db')).toBe(
      'zpush+postgres://me:***@host:5432/db',
    )
    expect(maskUrl('postgres://host/db')).toBe('postgres://host/db')
    expect(maskUrl('file:/a:b@c')).toBe('file:/a:b@c')
  })

  it('opens each kind', async () => {
    const stores = ['file:/a', 'zpush+postgres://host/a', 'postgresql://host/a'].map(open)
    expect(stores.map((store) => store.kind)).toEqual(['file', 'zpush-sql', 'postgres'])
    for (const store of stores) await store.close()
  })
})

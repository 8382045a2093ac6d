import { describe, expect, it } from 'vitest'
import { apnsPayload } from '../../../../src/domain/push/providers/apns/payload.ts'
import { sampleMessage } from '../../../contracts/push-provider.ts'

const payloadOf = (payload: unknown, more = {}) => {
  const push = { ...sampleMessage().push, payload: JSON.stringify(payload), ...more }
  const { text, ...rest } = apnsPayload(sampleMessage({ push }))
  expect(Buffer.byteLength(text)).toBeLessThanOrEqual(4_096)
  return { ...rest, body: JSON.parse(text) as Record<string, unknown> & { aps: Record<string, unknown> } }
}

describe('what APNs carries', () => {
  it.each(['Tea is ready', { title: 'Tea', body: 'is ready', 'loc-key': 'TEA' }])(
    'shows the alert of a payload that has one: %j',
    (alert) => {
      const { body, ...rest } = payloadOf({ alert, sound: 'bell.caf', badge: 3, cup: 1 })
      expect(rest).toEqual({ pushType: 'alert', priority: '10' })
      expect(body.aps).toEqual({
        alert,
        sound: 'bell.caf',
        badge: 3,
        'mutable-content': 1,
        'content-available': 1,
      })
      expect(body['payload']).toEqual({ alert, sound: 'bell.caf', badge: 3, cup: 1 })
    },
  )

  it.each([null, 1, 'alert', ['alert'], { alert: 1 }, { alert: '' }, { alert: {} }, { text: '"alert"' }])(
    'wakes the app in the background for %j',
    (payload) => {
      const { body, ...rest } = payloadOf(payload)
      expect(rest).toEqual({ pushType: 'background', priority: '5' })
      expect(body.aps).toEqual({ 'content-available': 1 })
      expect(body['payload']).toEqual(payload)
    },
  )

  it('goes without a payload that does not fit to the byte, and still shows its alert', () => {
    const bare = payloadOf({ alert: 'a', x: '' }).body
    const room = 4_096 - Buffer.byteLength(JSON.stringify(bare))
    expect(payloadOf({ alert: 'a', x: 'y'.repeat(room) }).body).toHaveProperty('payload')
    const { pushType, body } = payloadOf({ alert: 'a', x: 'y'.repeat(room + 1) })
    expect(pushType).toBe('alert')
    expect(body).toMatchObject({ truncated: true, aps: { alert: 'a' } })
    expect(body).not.toHaveProperty('payload')
  })

  it.each([
    ['😀'.repeat(3_000), `${'😀'.repeat(49)}…`],
    [
      { title: 'é'.repeat(3_000), body: 'short', other: 1 },
      { title: `${'é'.repeat(99)}…`, body: 'short' },
    ],
  ])('cuts an alert that does not fit by itself', (alert, cut) => {
    const { body } = payloadOf({ alert })
    expect(body).toMatchObject({ truncated: true })
    expect(body.aps['alert']).toEqual(cut)
  })

  it('fits whatever the names are', () => {
    const device = '\\"😀'.repeat(66)
    const push = {
      ...sampleMessage().push,
      topic: device,
      payload: JSON.stringify({ alert: '"'.repeat(9_000) }),
    }
    const { text } = apnsPayload(sampleMessage({ device, push }))
    expect(Buffer.byteLength(text)).toBeLessThanOrEqual(4_096)
    expect(JSON.parse(text)).toMatchObject({ device, truncated: true })
  })

  it('says that a payload was left out which nobody could read in time', () => {
    const { payload: _none, ...push } = sampleMessage().push
    const { text, pushType } = apnsPayload(sampleMessage({ push: { ...push, truncated: true } }))
    expect(pushType).toBe('background')
    expect(JSON.parse(text)).toMatchObject({ truncated: true })
  })
})

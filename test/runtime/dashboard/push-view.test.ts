import { expect, it } from 'vitest'
import { html, textOf } from '../../../src/runtime/dashboard/html.ts'
import { renderPush } from '../../../src/runtime/dashboard/pages/push-view.ts'

const pageOf = (exact: boolean): string =>
  textOf(
    renderPush({
      push: {
        id: '01890000-0000-7000-8000-000000000000',
        priority: true,
        acceptedAt: '2026-01-01T00:00:00.000Z',
        expiresAt: '2026-01-02T00:00:00.000Z',
        states: { confirmed: 10_001 },
        exact,
        devices: [],
        more: false,
      },
      page: {},
      history: [],
      notice: html``,
      isOperator: true,
      token: html``,
      now: 0,
    }),
  )

it('offers to withdraw a push unless every one of its devices was seen to have it', () => {
  expect(pageOf(true)).not.toContain('/withdraw')
  expect(pageOf(false)).toContain('/withdraw')
})

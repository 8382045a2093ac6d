import { expect, test } from 'vitest'
import { BODY_CORRUPT, BODY_TIMEOUT, BODY_UNAVAILABLE } from '../../../src/domain/bodies/errors.ts'
import { problemOf } from '../../../src/runtime/web/problem.ts'

const store = 'file:/mnt/secret-place/a'

test.each([
  BODY_CORRUPT({ id: 'x', reason: `${store} has other bytes` }),
  BODY_UNAVAILABLE({ store, reason: `ENOSPC: ${store}/x` }),
  BODY_TIMEOUT({ store, timeoutMs: 5 }),
])('what is told of $code names no store, and the log has it', (error) => {
  expect(problemOf(error)).not.toContain('secret-place')
  expect(JSON.parse(problemOf(error))).toMatchObject({ code: error.code, status: 503 })
  expect(error.message).toContain(store)
})

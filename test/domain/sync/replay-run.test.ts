import { expect, it } from 'vitest'
import { createReplay } from '../../../src/domain/sync/replay.ts'
import { SITE_UNREACHABLE } from '../../../src/platform/replication/client-errors.ts'
import { atEndOfTest, eventually } from '../../support/processes.ts'
import { openReplayPair, verifying } from './replay-pair.ts'

it('tries a replica that it waits for at once when it is resumed, or when a verification is asked for', async () => {
  const { leader } = await openReplayPair()
  let tries = 0
  const replay = createReplay({
    ...leader.sending,
    ...verifying(leader),
    connect: () => {
      tries++
      throw SITE_UNREACHABLE({ site: 'there', reason: 'cut by the test' }, { retryAfterMs: 3_600_000 })
    },
    isSeeded: async () => true,
    onSuperseded: async () => undefined,
  })
  const ended = new AbortController()
  const running = replay.run(ended.signal)
  atEndOfTest(async () => {
    ended.abort()
    await running
  })
  const isTried = (times: number): Promise<void> =>
    eventually(async () => {
      expect(tries).toBe(times)
      expect((await leader.replicas.get('b')).error).not.toBeNull()
    })
  await isTried(1)
  await leader.replicas.resume('b')
  await isTried(2)
  await leader.replicas.verify('b')
  await isTried(3)
})

import { expect, it, onTestFinished } from 'vitest'
import type { OpenListen } from '../../../src/domain/push/listen.ts'
import type { ListenRows } from '../../../src/domain/push/listen-rows.ts'
import { createOpenListens, startLooking } from '../../../src/domain/push/open-listens.ts'
import { createLog } from '../../../src/platform/log.ts'
import { eventually } from '../../support/processes.ts'
import { createTurnedClock } from '../../support/turned-clock.ts'

it('looks at every listen in turn, though there are more than it can look at in ten seconds', async () => {
  const clock = createTurnedClock()
  const listens = createOpenListens()
  const devices = Array.from({ length: 1_000 }, (_, index) => `device-${index}`)
  for (const device of devices) {
    listens.add({ id: device, devices: [device], registered: true, lookedAt: 0 } as unknown as OpenListen)
  }
  const looked = new Set<string>()
  const look: ListenRows['look'] = async (asked) => {
    for (const { device } of asked) looked.add(device)
    // All of them are to be looked at once more before the next look.
    clock.pass(10_000)
    return []
  }
  clock.pass(10_000)
  const log = createLog({ level: 'silent', process: 'test' })
  const looking = startLooking({ listens, rows: { look } as ListenRows, clock, log })
  onTestFinished(() => looking.stop())
  await eventually(() => expect(looked.size).toBe(devices.length))
})

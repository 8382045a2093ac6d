import { describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { alarmQueue, createAlarms, shardsOfAlarm } from '../../../src/domain/push/alarms.ts'
import { allShards } from '../../../src/domain/push/shard.ts'
import { createLog } from '../../../src/platform/log.ts'
import type { Entry, QueueBackend } from '../../../src/platform/queues/backend.ts'

const log = createLog({ level: 'silent', process: 'test' })
const clock = createSystemClock()

/** Alarms whose entries are only written down. */
function written(fail = false) {
  const entries: Entry[] = []
  let asked = 0
  const add = async (queue: string, added: Entry[]): Promise<void> => {
    expect(queue).toBe(alarmQueue)
    asked += 1
    if (fail) throw new Error('the queue is away')
    entries.push(...added)
  }
  return {
    entries,
    get asked() {
      return asked
    },
    alarms: createAlarms({ backend: { add } as unknown as QueueBackend, clock, log }),
  }
}

describe('an alarm', () => {
  it('fires at the end of the tick in which something is due, never before', async () => {
    const { entries, alarms } = written()
    alarms.arm([{ shard: 6, dueAt: 1_000_060, saidAt: 999_000 }])
    await alarms.idle()
    expect(entries).toHaveLength(1)
    expect(shardsOfAlarm(entries[0]?.id ?? '')).toContain(6)
    const firesAt = 999_000 + (entries[0]?.delayMs ?? 0)
    expect(firesAt).toBeGreaterThanOrEqual(1_000_060)
    expect(firesAt).toBeLessThanOrEqual(1_000_255)
  })

  it('is one for all that is due in a tick, however much that is', async () => {
    const { entries, alarms } = written()
    const points = Array.from({ length: 64_000 }, (_none, n) => ({
      shard: n % 64,
      dueAt: 1_000_000 + (n % 1_000),
      saidAt: 990_000,
    }))
    alarms.arm(points)
    alarms.arm(points)
    await alarms.idle()
    expect(entries.length).toBeLessThanOrEqual(16)
    const covered = new Set(entries.flatMap(({ id }) => shardsOfAlarm(id) ?? []))
    expect(covered).toEqual(new Set(allShards))
  })

  it('comes at once, over all shards, for what is due already, and always in the future', async () => {
    const { entries, alarms } = written()
    for (const saidAt of [1_000_000, 1_000_003, 1_000_024]) alarms.arm([{ shard: 1, dueAt: 900_000, saidAt }])
    await alarms.idle()
    for (const { id, delayMs } of entries) {
      expect(shardsOfAlarm(id)).toEqual(allShards)
      expect(delayMs).toBeGreaterThan(0)
      expect(delayMs).toBeLessThanOrEqual(30)
    }
  })

  it('is not set for what is far away: the sweep comes round before', async () => {
    const { entries, alarms } = written()
    alarms.arm([{ shard: 1, dueAt: 2_000_000, saidAt: 1_000_000 }])
    await alarms.idle()
    expect(entries).toEqual([])
  })

  it('is tried again when it could not be set', async () => {
    const failing = written(true)
    const point = { shard: 1, dueAt: 1_001_000, saidAt: 1_000_000 }
    failing.alarms.arm([point])
    await failing.alarms.idle()
    await new Promise((resolve) => setImmediate(resolve))
    failing.alarms.arm([point])
    await failing.alarms.idle()
    expect(failing.asked).toBe(2)
  })

  it('is known by its id alone', () => {
    expect(shardsOfAlarm('alarm-now-17')).toHaveLength(64)
    expect(shardsOfAlarm('alarm-3-17')).toHaveLength(16)
    for (const id of ['alarm-4-17', 'alarm-x-1', 'other']) expect(shardsOfAlarm(id)).toBeUndefined()
  })
})

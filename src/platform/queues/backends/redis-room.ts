import type { Clock } from '../../../core/clock.ts'
import type { RedisClient } from '../../redis.ts'

/**
 * Keeps a part of Redis's memory for those who take entries out. To fetch an entry takes memory too: a Redis that was
 * filled to `maxmemory` refuses it, and as nothing is fetched nothing is ever freed.
 */
export interface RedisRoom {
  /** @throws when the node that has the queue is nearly full; entries are then left to the reconciler */
  assertFor(queue: string, entries: number): Promise<void>
}

/** Share of `maxmemory` up to which entries are added. */
const fillUpTo = 0.85
/** What was seen holds for so long, ms, and for so many entries: some 300 bytes each. */
const validMs = 250
const validEntries = 1_000

const memoryScript = `
local info = redis.call('INFO', 'memory')
return { string.match(info, '[\\r\\n]used_memory:(%d+)'), string.match(info, '[\\r\\n]maxmemory:(%d+)') }`

interface Look {
  atMs: number
  left: number
  full: string | undefined
}

/** @param key one of the queue's, so that on a Cluster the node that has it is asked */
export function createRedisRoom(
  client: RedisClient,
  clock: Clock,
  key: (queue: string) => string,
): RedisRoom {
  const looks = new Map<string, Look>()

  const look = async (queue: string): Promise<Look> => {
    const [used, most] = ((await client.eval(memoryScript, 1, key(queue))) as (string | null)[]).map(Number)
    const isFull = used !== undefined && most !== undefined && most > 0 && used > most * fillUpTo
    const seen: Look = {
      atMs: clock.monotonicMs(),
      left: validEntries,
      full: isFull ? `Redis has used ${used} of its ${most} bytes of maxmemory` : undefined,
    }
    looks.set(queue, seen)
    return seen
  }

  return {
    assertFor: async (queue, entries) => {
      const known = looks.get(queue)
      const isValid = known !== undefined && known.left > 0 && clock.monotonicMs() - known.atMs < validMs
      const seen = isValid ? known : await look(queue)
      seen.left -= entries
      if (seen.full !== undefined) throw new Error(seen.full)
    },
  }
}

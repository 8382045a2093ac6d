import { randomUUID } from 'node:crypto'
import type { RedisClient } from '../../redis.ts'
import { type Engine, longestPauseMs } from './engine.ts'

/** What we ask of Redis ourselves, beside BullMQ. */
export type RedisCommands = Pick<Engine, 'addPlain' | 'strayed' | 'active' | 'epoch' | 'mark' | 'ping'>

/** Events nobody reads; they cannot be turned off, so few are kept. */
const keptEvents = 100

/** Both in one script, so that on a Cluster the key and the run id come from the node that has the queue. */
const epochScript = `
local key = redis.call('GET', KEYS[1])
return { key, string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') }`
const heldScript = `
local held = {}
for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
  local key = ARGV[1] .. id
  if redis.call('HGET', key, 'pb') == ARGV[2] then
    held[#held + 1] = id
    held[#held + 1] = redis.call('GET', key .. ':lock') or ''
  end
end
return held`

/**
 * What BullMQ's addStandardJob does to its keys, for many entries at once, less the events that nobody reads:
 * a hash for each, its id on the waiting list, and the marker that wakes a worker unless the queue is paused or full.
 */
const addScript = `
local base, options, timestamp = ARGV[1], ARGV[2], ARGV[3]
local new = {}
for i = 4, #ARGV, 2 do
  local key = base .. ARGV[i]
  if redis.call('EXISTS', key) == 0 then
    redis.call('HMSET', key, 'name', ARGV[i + 1], 'data', '{}', 'opts', options, 'timestamp', timestamp,
      'delay', 0, 'priority', 0)
    new[#new + 1] = ARGV[i]
  end
end
if #new == 0 then return 0 end
redis.call('LPUSH', KEYS[1], unpack(new))
local meta = redis.call('HMGET', KEYS[3], 'paused', 'concurrency')
if not meta[1] and not (meta[2] and redis.call('LLEN', KEYS[2]) >= tonumber(meta[2])) then
  redis.call('ZADD', KEYS[4], 0, '0')
end
return #new`

/**
 * Reads only. By the clock of Redis, so that one wrong clock among the nodes does not matter. Whether an id is on the
 * waiting list is only asked of a short one: in a long one it takes as long as the list is, and there it has time.
 */
const strayedScript = `
local base, longestMs, now = ARGV[1], tonumber(ARGV[2]), tonumber(redis.call('TIME')[1]) * 1000
local short, listed = redis.call('LLEN', KEYS[1]) <= 1000, {}
if short then
  for list = 1, 2 do
    for _, id in ipairs(redis.call('LRANGE', KEYS[list], 0, -1)) do listed[id] = true end
  end
end
local late, lost = {}, {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local score = redis.call('ZSCORE', KEYS[3], id)
  if score then
    if tonumber(score) / 4096 > now + longestMs then late[#late + 1] = id end
  elseif short and not listed[id] and not redis.call('ZSCORE', KEYS[4], id)
    and redis.call('EXISTS', base .. id) == 1 then
    lost[#lost + 1] = id
  end
end
return { late, lost }`

/** With the command that `defineCommand` makes of the script: by its digest, sent in full only when Redis lost it. */
type AddingClient = RedisClient & { batonAdd(...args: (string | number)[]): Promise<number> }

/** @param key of a queue, by BullMQ's name of its type */
export function createRedisCommands(
  client: RedisClient,
  key: (queue: string, type: string) => string,
): RedisCommands {
  client.defineCommand('batonAdd', { numberOfKeys: 4, lua: addScript })
  const epoch = async (queue: string): Promise<string | undefined> => {
    const [planted, runId] = (await client.eval(epochScript, 1, key(queue, 'epoch'))) as (string | null)[]
    return planted ? `${planted}:${runId ?? ''}` : undefined
  }
  return {
    epoch,
    mark: async (queue) => {
      await client.set(key(queue, 'epoch'), randomUUID(), 'NX')
      await client.hset(key(queue, 'meta'), 'opts.maxLenEvents', keptEvents)
      return (await epoch(queue)) ?? ''
    },
    addPlain: async (queue, { ids, names, options, epochMs }) => {
      const keys = ['wait', 'active', 'meta', 'marker'].map((type) => key(queue, type))
      const pairs = ids.flatMap((id, index) => [id, names[index] ?? ''])
      await (client as AddingClient).batonAdd(...keys, key(queue, ''), options, epochMs, ...pairs)
    },
    strayed: async (queue, ids) => {
      const keys = ['wait', 'active', 'delayed', 'prioritized'].map((type) => key(queue, type))
      const answer = await client.eval(strayedScript, 4, ...keys, key(queue, ''), longestPauseMs, ...ids)
      const [late = [], lost = []] = answer as string[][]
      // Locks run out by the clock of Redis itself.
      return { late, lost, locked: [] }
    },
    active: async (queue, runner) => {
      const keys = [key(queue, 'active'), key(queue, '')] as const
      const found = (await client.eval(heldScript, 1, ...keys, runner)) as string[]
      return pairsOf(found).map(([id, token]) => ({ id, token: token || undefined }))
    },
    ping: async () => void (await client.ping()),
  }
}

const pairsOf = (flat: string[]): [string, string][] =>
  Array.from({ length: flat.length / 2 }, (_, index) => [flat[2 * index] ?? '', flat[2 * index + 1] ?? ''])

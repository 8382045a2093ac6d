import type { RedisClient } from '../../redis.ts'
import { kept, plainOptions } from './entries.ts'
import type { Exchange, Exchanged, Taken } from './exchange.ts'

/** Old entries that are removed in one command at most. */
const maxPruned = 1_000

/**
 * Does to BullMQ's keys what its moveToFinished does to entries without parents, children and deduplication, and what
 * its moveToActive does to those that wait, less the events that nobody reads. Promotions, pauses and limits it leaves
 * to BullMQ, and says so.
 */
const exchangeScript = `
local call = redis.call
local wait, active, prioritized, delayed, meta, stalled, marker, completed = unpack(KEYS)
local base, now, lockMs, runner, tokenBase = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local take, plain = tonumber(ARGV[6]), ARGV[7]

local failed, unlocked, keeps = {}, {}, false
for i = 10, #ARGV, 3 do
  local id, token, value, key = ARGV[i], ARGV[i + 1], ARGV[i + 2], base .. ARGV[i]
  local lockKey, code = key .. ':lock', nil
  local lock = call('GET', lockKey)
  if lock ~= token then
    code = call('EXISTS', key) == 0 and -1 or lock and -6 or -2
  else
    unlocked[#unlocked + 1] = id
    if call('LREM', active, -1, id) == 0 then
      code = call('EXISTS', key) == 0 and -1 or -3
      call('DEL', lockKey)
    elseif value == '' then
      if call('DEL', key, lockKey) < 2 then code = -1 end
    else
      call('DEL', lockKey)
      if call('EXISTS', key) == 0 then
        code = -1
      else
        keeps = true
        call('HINCRBY', key, 'atm', 1)
        call('HSET', key, 'returnvalue', value, 'finishedOn', now)
        call('ZADD', completed, now, id)
      end
    end
  end
  if code then
    failed[#failed + 1] = id
    failed[#failed + 1] = code
  end
end
if #unlocked > 0 then call('SREM', stalled, unpack(unlocked)) end
if keeps then
  local over = call('ZCARD', completed) - tonumber(ARGV[9])
  local old = {}
  if over > 0 then old = call('ZRANGE', completed, 0, math.min(over, ${maxPruned}) - 1) end
  if #old == 0 then
    old = call('ZRANGEBYSCORE', completed, 0, tonumber(now) - tonumber(ARGV[8]) * 1000, 'LIMIT', 0, ${maxPruned})
  end
  if #old > 0 then
    call('ZREM', completed, unpack(old))
    for i = 1, #old do old[i] = base .. old[i] end
    call('DEL', unpack(old))
  end
end

local taken, husks = {}, {}
if take == 0 then return { failed, taken, husks, 0, 0 } end
local limits = call('HMGET', meta, 'paused', 'concurrency', 'max')
if limits[1] or limits[2] or limits[3] then return { failed, taken, husks, 2, 0 } end
local due = #call('ZRANGEBYSCORE', delayed, 0, (tonumber(now) + 1) * 4096 - 1, 'LIMIT', 0, 1) > 0
-- One place is left for the entry that BullMQ will find.
if due then take = take - 1 end
local ids = {}
if take > 0 then
  local line = call('LRANGE', wait, -take, -1)
  for i = #line, 1, -1 do ids[#ids + 1] = line[i] end
  if #line > 0 then call('LTRIM', wait, 0, -(#line + 1)) end
  if #line < take then
    local ranked = call('ZPOPMIN', prioritized, take - #line)
    for i = 1, #ranked, 2 do ids[#ids + 1] = ranked[i] end
  end
end
if #ids > 0 then
  local whole = {}
  for i = 1, #ids do
    local id, key = ids[i], base .. ids[i]
    local job = call('HMGET', key, 'name', 'data', 'opts', 'ats', 'atm', 'stc')
    if not job[1] then
      husks[#husks + 1] = id
      call('DEL', key)
    else
      whole[#whole + 1] = id
      call('SET', key .. ':lock', tokenBase .. #whole, 'PX', lockMs)
      call('HSET', key, 'processedOn', now, 'pb', runner, 'ats', (tonumber(job[4]) or 0) + 1)
      local n = #taken
      taken[n + 1], taken[n + 2] = id, job[1]
      if job[3] == plain and job[2] == '{}' then
        taken[n + 3], taken[n + 4], taken[n + 5], taken[n + 6] = '', '', '', ''
      else
        taken[n + 3], taken[n + 4], taken[n + 5], taken[n + 6] = job[2], job[3], job[5] or '0', job[6] or '0'
      end
    end
  end
  if #whole > 0 then call('LPUSH', active, unpack(whole)) end
end
-- Taking the marker is what woke us: without another one the next consumer would sleep beside a full line.
local rest = call('EXISTS', wait, prioritized) > 0
if rest then call('ZADD', marker, 0, '0') end
if due then return { failed, taken, husks, 2, 0 } end
if #ids == take then return { failed, taken, husks, 1, 0 } end
local nextDue = call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
return { failed, taken, husks, 0, nextDue[2] or 0 }`

type ExchangingClient = RedisClient & {
  batonExchange(
    ...args: (string | number)[]
  ): Promise<[(string | number)[], string[], string[], number, string | number]>
}

export interface RedisExchangeOptions {
  runner: string
  lockMs: number
  /** Of the queue, by BullMQ's name of its type. */
  key(type: string): string
}

export function createRedisExchange(
  client: RedisClient,
  { runner, lockMs, key }: RedisExchangeOptions,
): (exchange: Exchange) => Promise<Exchanged> {
  client.defineCommand('batonExchange', { numberOfKeys: 8, lua: exchangeScript })
  const keys = ['wait', 'active', 'prioritized', 'delayed', 'meta', 'stalled', 'marker', 'completed'].map(key)
  const base = key('')
  return async ({ ended, take, tokenBase, epochMs }) => {
    const args: (string | number)[] = [...keys, base, Math.round(epochMs), lockMs, runner, tokenBase, take]
    args.push(plainOptions, kept.age, kept.count)
    for (const each of ended) args.push(each.id, each.token, each.kept ?? '')
    const [failed, taken, husks, left, dueScore] = await (client as ExchangingClient).batonExchange(...args)
    return {
      failed: failuresOf(failed),
      taken: takenOf(taken, tokenBase),
      husks,
      left: left === 2 ? 'unclear' : left === 1 ? 'some' : 'none',
      dueAt: Math.ceil(Number(dueScore) / 4_096),
    }
  }
}

function failuresOf(flat: (string | number)[]): Exchanged['failed'] {
  const failed: Exchanged['failed'] = []
  for (let at = 0; at < flat.length; at += 2)
    failed.push({ id: String(flat[at]), code: Number(flat[at + 1]) })
  return failed
}

function takenOf(flat: string[], tokenBase: string): Taken[] {
  const taken: Taken[] = []
  for (let at = 0; at < flat.length; at += 6) {
    const options = flat[at + 3]
    taken.push({
      id: flat[at] ?? '',
      name: flat[at + 1] ?? '',
      token: `${tokenBase}${taken.length + 1}`,
      data: flat[at + 2] || '{}',
      attempts: options ? attemptsOf(options) : 1,
      attemptsMade: Number(flat[at + 4]),
      stalls: Number(flat[at + 5]),
    })
  }
  return taken
}

const attemptsOf = (options: string): number => (JSON.parse(options) as { attempts?: number }).attempts ?? 1

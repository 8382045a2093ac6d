import type { Clock } from '../../core/clock.ts'
import { withLimit } from '../../core/lifecycle.ts'
import type { Log } from '../../platform/log.ts'
import { type Ending, isHeld } from './ending.ts'
import type { Keeper } from './keeper.ts'
import type { Roster } from './roster.ts'
import type { ClientServer } from './server.ts'
import type { Target } from './target.ts'
import type { Upgrades } from './upgrade.ts'

export interface StopParts {
  server: ClientServer
  roster: Roster
  keeper: Keeper
  ending: Ending
  upgrades: Upgrades
  clock: Clock
  log: Log
  shutdownMs: number
}

/** Over which streams are ended, ms: their clients all come back at once otherwise. */
const streamsMs = 1_000
const stepMs = 50
/** For what has to be written when everything has ended, ms. */
const spareMs = 250

/** The phases of docs/protocols/gateway.md, "Stop". @returns false when something was cut or killed */
export async function stopGateway(parts: StopParts): Promise<boolean> {
  const { clock, shutdownMs, server, roster, log } = parts
  const began = clock.monotonicMs()
  const leftMs = (until: number): number => Math.max(0, until - (clock.monotonicMs() - began))
  await server.closeDoor(shutdownMs / 6)
  endStreams(parts)
  await untilFree(parts, leftMs(shutdownMs / 3))
  // What was just being started ends by the signal that has been given.
  await withLimit(settleStarts(parts), leftMs(shutdownMs)).catch(() => undefined)
  const ended = await endTargets(parts, leftMs(shutdownMs - shutdownMs / 8 - spareMs))
  // The last answers are on their way.
  const finished = await untilFree(parts, Math.min(spareMs, leftMs(shutdownMs)))
  if (!finished) log.warn('requests were still under way when their time was up, and are cut')
  server.cut()
  for (const target of roster.targets) roster.remove(target, 'stopped')
  roster.save()
  return finished && ended
}

/**
 * Ends what a start that has failed has itself started. What it took over has done nothing wrong and serves sessions: it
 * is left to the next gateway.
 */
export async function giveUpStart(
  { roster, ending, shutdownMs }: Pick<StopParts, 'roster' | 'ending' | 'shutdownMs'>,
  takenOver: ReadonlySet<Target>,
): Promise<void> {
  const own = roster.targets.filter((target) => !takenOver.has(target))
  await Promise.all(own.map((target) => ending.end(target, shutdownMs)))
  for (const target of own) roster.remove(target, 'stopped')
}

function endStreams({ roster, shutdownMs }: StopParts): void {
  const overMs = Math.min(streamsMs, shutdownMs / 10)
  for (const { lease } of roster.targets) {
    for (const stream of lease.streams) setTimeout(() => stream.close(), Math.random() * overMs)
  }
}

/** @returns whether nothing is under way any more */
async function untilFree({ roster, clock }: StopParts, limitMs: number): Promise<boolean> {
  const until = clock.monotonicMs() + limitMs
  const isFree = (): boolean => !roster.targets.some(({ lease }) => isHeld(lease))
  while (!isFree() && clock.monotonicMs() < until) await clock.sleep(stepMs)
  return isFree()
}

async function settleStarts({ roster, keeper, upgrades }: StopParts): Promise<void> {
  await upgrades.idle()
  if (roster.current) await keeper.abandon(roster.current)
}

async function endTargets({ roster, ending }: StopParts, limitMs: number): Promise<boolean> {
  const ends = await Promise.all(roster.targets.map((target) => ending.end(target, limitMs)))
  return ends.every((clean) => clean)
}

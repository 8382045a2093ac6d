import { backoffMs } from '../../core/backoff.ts'
import { toIso } from '../../core/clock.ts'
import { BatonError, codeOf, messageOf } from '../../core/errors.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import { refusalOf } from '../../platform/replication/site-client.ts'
import { type Link, openLink, type SendingParts } from './link.ts'
import { REPLICA_DIVERGED } from './protocol-errors.ts'
import type { RemoteSite } from './remote-site.ts'
import { retryDue } from './repair.ts'
import { advance } from './replay-shard.ts'
import { findReplica, listReplicas, type ReplicaRow, setReplicaError } from './replica-rows.ts'
import { createVerifier, type VerifierParts } from './verifier.ts'

export interface ReplayOptions extends SendingParts, VerifierParts {
  /** @throws when its key cannot be opened */
  connect(replica: ReplicaRow, signal: AbortSignal): RemoteSite
  /** Told when a replica has seen a higher epoch: this site is not the leader any more. */
  onSuperseded(seen: Superseded): Promise<void>
}

export interface Superseded {
  replica: string
  epoch: number
}

/** Sends to all replicas what they have not got. Two of them, in two processes, do no harm. */
export interface Replay {
  /** Until the signal aborts. Never throws. */
  run(signal: AbortSignal): Promise<void>
  /** Something was numbered: the replicas are looked after at once. */
  wake(): void
}

/** How often replicas that have all are looked after without a wake, ms. */
const idleMs = 500
const listMs = 1_000
/** A replica that was restored from a back-up, or fell to another leader, is noticed within this, ms. */
const helloMs = 15_000
const retryMs = 2_000
const backoff = { baseMs: 1_000, maxMs: 60_000 }
/** Shards under way at once. */
const concurrency = 4
/** Longest time of a pass, ms; then a pause or a new key is noticed. */
const passMs = 3_000

export function createReplay(options: ReplayOptions): Replay {
  const wakes = new Set<() => void>()
  const runners = new Map<string, Promise<void>>()
  const pause = async (ms: number, signal: AbortSignal): Promise<void> => {
    const waking = new AbortController()
    const wake = (): void => waking.abort()
    wakes.add(wake)
    await options.clock.sleep(ms, AbortSignal.any([signal, waking.signal]))
    wakes.delete(wake)
  }
  const attend = (name: string, signal: AbortSignal): void => {
    if (runners.has(name)) return
    const runner = look(options, { name, signal, pause }).finally(() => runners.delete(name))
    runners.set(name, runner)
  }
  return {
    wake: () => {
      for (const wake of wakes) wake()
    },
    run: async (signal) => {
      while (!signal.aborted) {
        const replicas = await listReplicas(options.postgres).catch(() => [])
        for (const { name } of replicas) attend(name, signal)
        await options.clock.sleep(listMs, signal)
      }
      await Promise.all(runners.values())
    },
  }
}

interface Attended {
  name: string
  signal: AbortSignal
  pause(ms: number, signal: AbortSignal): Promise<void>
}

/** Looks after one replica until it is removed. */
async function look(options: ReplayOptions, { name, signal, pause }: Attended): Promise<void> {
  const { clock } = options
  const ended = new AbortController()
  const both = AbortSignal.any([signal, ended.signal])
  const line = createLine(options, both)
  const verifier = createVerifier(options, both)
  let failures = 0
  while (!signal.aborted) {
    let row: ReplicaRow | undefined
    try {
      row = await findReplica(options.postgres, name)
      if (!row) break
      if (row.paused) {
        line.drop()
        await clock.sleep(listMs, signal)
        continue
      }
      const link = await line.open(row)
      const isBusy = await pass(options, link)
      failures = 0
      if (row.error) await setReplicaError(options.postgres, name, null)
      verifier.look(link, row)
      if (!isBusy) await pause(idleMs, signal)
    } catch (error) {
      if (signal.aborted) break
      line.drop()
      failures++
      await tell(options, { name, known: row?.error?.message }, error)
      await rest(options, { signal, row }, waitMs(error, failures))
    }
  }
  ended.abort()
  await verifier.idle()
}

/** Until it is tried again: at once when somebody resumes it, registers it anew or asks for a verification meanwhile. */
async function rest(
  { clock, postgres }: ReplayOptions,
  { signal, row }: { signal: AbortSignal; row: ReplicaRow | undefined },
  ms: number,
): Promise<void> {
  const untilMs = clock.monotonicMs() + ms
  for (;;) {
    const leftMs = untilMs - clock.monotonicMs()
    if (leftMs <= 0 || signal.aborted) return
    await clock.sleep(Math.min(listMs, leftMs), signal)
    if (row && (await isWoken(postgres, row))) return
  }
}

/** Compared with how it was before the try, so that nothing is missed that somebody asked for meanwhile. */
async function isWoken(postgres: Postgres, before: ReplicaRow): Promise<boolean> {
  try {
    const now = await findReplica(postgres, before.name)
    // The trouble is written down by then; who resumes a replica, or registers it, takes it away.
    const isResumed = !now || now.error === null || now.revision !== before.revision
    return isResumed || (now.verifyWantedAt !== null && now.verifyWantedAt !== before.verifyWantedAt)
  } catch {
    return false
  }
}

function waitMs(error: unknown, failures: number): number {
  const asked = error instanceof BatonError ? (error.retryAfterMs ?? 0) : 0
  return Math.max(asked, backoffMs(failures, backoff))
}

interface Told {
  name: string
  known: string | undefined
}

async function tell(options: ReplayOptions, { name, known }: Told, error: unknown): Promise<void> {
  const { postgres, log, clock } = options
  const code = refusalOf(error)?.code || codeOf(error) || 'INTERNAL'
  const message = messageOf(error).slice(0, 1_000)
  if (message !== known)
    log.warn({ replica: name, code, reason: message }, 'A replica does not follow; it is tried again')
  try {
    await setReplicaError(postgres, name, { code, message, at: toIso(clock.now()) })
    if (REPLICA_DIVERGED.is(error)) await holdDiverged(postgres, name)
    const epoch = higherEpochOf(error)
    if (epoch !== undefined) await options.onSuperseded({ replica: name, epoch })
  } catch (fault) {
    log.warn(
      { replica: name, reason: messageOf(fault) },
      'the trouble of a replica could not be written down',
    )
  }
}

/** Else it would be taken for one that follows as soon as the head here has passed it. */
async function holdDiverged(postgres: Postgres, name: string): Promise<void> {
  await postgres.query('UPDATE replicas SET paused = true, verify_wanted_at = now() WHERE name = $1', [name])
}

function higherEpochOf(error: unknown): number | undefined {
  const refusal = refusalOf(error)
  const epoch = Number(refusal?.values['epoch'])
  return refusal?.code === 'EPOCH_STALE' && Number.isSafeInteger(epoch) ? epoch : undefined
}

/** Keeps the link, as long as url, key and policy are what they were and the replica stands where it is thought to be. */
function createLine(options: ReplayOptions, signal: AbortSignal) {
  let link: Link | undefined
  let revision: string | undefined
  let saidAt = Number.NEGATIVE_INFINITY
  const drop = (): void => void (link = undefined)
  return {
    drop,
    open: async (row: ReplicaRow): Promise<Link> => {
      const now = options.clock.monotonicMs()
      if (link && revision === row.revision && now - saidAt < helloMs) return link
      const opened = await openLink(options, {
        replica: row.name,
        policies: row.policy,
        remote: options.connect(row, signal),
        signal,
      })
      saidAt = now
      const isSame =
        link &&
        revision === row.revision &&
        link.speaker.epoch === opened.speaker.epoch &&
        link.cursors.every((cursor, shard) => (opened.cursors[shard] ?? 0) >= cursor)
      revision = row.revision
      if (!isSame || !link) link = opened
      return link
    },
  }
}

/** @returns whether something was sent */
async function pass(options: ReplayOptions, link: Link): Promise<boolean> {
  const heads = await options.sequencer.heads()
  const untilMs = options.clock.monotonicMs() + passMs
  // Also those whose last answer was lost, though nothing new is to be sent.
  const behind = heads.flatMap((head, shard) => {
    const cursor = link.cursors[shard] ?? 0
    return head > cursor || cursor > (link.heard[shard] ?? cursor) ? [shard] : []
  })
  const isBusy = behind.length > 0
  const work = async (): Promise<void> => {
    for (let shard = behind.shift(); shard !== undefined; shard = behind.shift()) {
      let moved = true
      while (moved && !link.signal.aborted && options.clock.monotonicMs() < untilMs) {
        moved = await advance(link, shard, heads[shard] ?? 0)
      }
    }
  }
  const ends = await Promise.allSettled(Array.from({ length: concurrency }, work))
  const failed = ends.find((end) => end.status === 'rejected')
  if (failed) throw failed.reason
  if (options.clock.monotonicMs() >= (nextRetry.get(link) ?? 0)) {
    nextRetry.set(link, options.clock.monotonicMs() + retryMs)
    await retryDue(link)
  }
  return isBusy
}

const nextRetry = new WeakMap<Link, number>()

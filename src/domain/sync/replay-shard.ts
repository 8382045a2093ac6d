import { messageOf } from '../../core/errors.ts'
import { refusalOf } from '../../platform/replication/site-client.ts'
import { countDeletes, judgeDeletes, trip } from './fuse.ts'
import { fullWindow, type Link } from './link.ts'
import { isOfRequest, type PlannedRow, pack, plan, type Shipment } from './pack.ts'
import { heldOf, type Quarantined, quarantine, release } from './quarantine.ts'
import { saveHeard } from './replica-rows.ts'
import { type ChangeRow, readWindow } from './window.ts'
import type { ApplyAnswer } from './wire.ts'

/** The next window of a shard, up to `head`. @returns whether the cursor has moved, or was found elsewhere */
export const advance = (link: Link, shard: number, head: number): Promise<boolean> =>
  link.lane(shard, () => advanceInLane(link, shard, head))

/**
 * The same for who has the lane of the shard.
 *
 * @throws what `RemoteSite` does, when nobody can say of the window
 */
export async function advanceInLane(link: Link, shard: number, head: number): Promise<boolean> {
  await hearGap(link, shard)
  const from = link.cursors[shard] ?? 0
  if (from >= head) return false
  const limit = link.windows[shard] ?? fullWindow
  const rows = await readWindow(link.postgres, { shard, from, to: head }, limit)
  // Of a head whose row is gone there is nothing to be sent but the position.
  const end = rows.length < limit ? head : (rows.at(-1)?.pos ?? head)
  try {
    await sendWindow(link, { shard, from, to: end, rows })
    link.windows[shard] = Math.min(fullWindow, limit * 2)
  } catch (error) {
    await recover(link, { shard, from, to: end, rows }, error)
  }
  return true
}

interface Window {
  shard: number
  from: number
  to: number
  rows: ChangeRow[]
}

async function sendWindow(link: Link, window: Window): Promise<void> {
  const planned = await plan(link, window.rows)
  const deletes = planned.filter(
    ({ row, planned: { state } }) => row.kind === 'delete' && state !== 'current',
  )
  if (deletes.length === 0) return ship(link, window, planned)
  await link.deletes(async () => {
    const held = await holdBack(
      link,
      deletes.map(({ row }) => row),
    )
    await ship(
      link,
      window,
      planned.filter(({ row }) => !held.has(`${row.type} ${row.id}`)),
    )
  })
}

/** @returns the deletes that a plan holds back, in the quarantine before anything is sent */
export async function holdBack(link: Link, deletes: readonly ChangeRow[]): Promise<Set<string>> {
  const { postgres, replica, log, clock } = link
  const held = await heldOf(postgres, replica, deletes)
  const fresh = deletes.filter(({ type, id }) => !held.has(`${type} ${id}`))
  const reason = await judgeDeletes(postgres, replica, fresh)
  if (reason === undefined) return held
  const fuse = await trip(postgres, { replica, reason, now: clock.now() }, fresh)
  log.error(
    { replica, plan: fuse, deletes: fresh.length },
    'The fuse holds deletes back: baton sync status says why',
  )
  return new Set([...held, ...fresh.map(({ type, id }) => `${type} ${id}`)])
}

async function ship(link: Link, { shard, from, to }: Window, planned: readonly PlannedRow[]): Promise<void> {
  const shipment = await pack(link, planned)
  // What did not fit is the beginning of the next window.
  const end = shipment.rows < planned.length ? (planned[shipment.rows - 1]?.row.pos ?? to) : to
  const answer = await link.remote.apply(link.speaker, {
    shard,
    window: { from, to: end },
    objects: shipment.objects,
  })
  link.cursors[shard] = answer.cursor
  await hear(link, { shard, pos: answer.cursor }, { shipment, results: answer.results })
  link.heard[shard] = answer.cursor
}

export interface Heard {
  shipment: Shipment
  results: ApplyAnswer['results']
}

/** What came of it, and how far it was heard, in one transaction: whoever dies before hears it once more (`hearGap`). */
export async function hear(
  link: Link,
  { shard, pos }: { shard: number; pos: number | undefined },
  { shipment, results }: Heard,
): Promise<void> {
  const { postgres, replica } = link
  const failed: Quarantined[] = [...shipment.unsent]
  const done: { type: string; id: string }[] = []
  let deletes = 0
  for (const [index, { type, id, kind }] of shipment.objects.entries()) {
    const { state, reason } = results[index] ?? { state: 'failed', reason: 'the answer does not tell of it' }
    if (state === 'failed') failed.push({ type, id, kind: 'failed', reason: reason ?? 'unknown' })
    else if (state === 'mismatch') failed.push({ type, id, kind: 'mismatch', reason: changedThere })
    else done.push({ type, id })
    if (kind === 'delete' && state === 'applied') deletes++
    link.metrics.count('baton_sync_objects_total', { type, result: state })
  }
  const head = pos === undefined ? undefined : (await link.sequencer.heads())[shard]
  await postgres.transaction(async (client) => {
    await quarantine(client, { replica }, failed)
    await release(client, replica, done)
    await countDeletes(client, replica, deletes)
    if (pos !== undefined) await saveHeard(client, { replica, shard, pos, even: pos === head })
  })
  link.metrics.count(
    'baton_sync_bytes_total',
    {},
    shipment.objects.reduce((sum, { content }) => sum + (content?.length ?? 0), 0),
  )
}

const changedThere = 'somebody changed it on the replica, past the fence'

/** An answer was lost: what of the rows before the cursor is not over there as it is here goes into the quarantine. */
async function hearGap(link: Link, shard: number): Promise<void> {
  const { postgres, replica } = link
  const to = link.cursors[shard] ?? 0
  for (let from = link.heard[shard] ?? to; from < to; ) {
    const rows = await readWindow(postgres, { shard, from, to }, fullWindow)
    const planned = await plan(link, rows)
    // One without a hash has another position to come.
    const isSettled = ({ kind, hash }: ChangeRow): boolean => kind !== 'upsert' || hash !== null
    const missing = planned
      .filter(({ row, planned: { state } }) => state !== 'current' && isSettled(row))
      .map(({ row }) => row)
    const held = await heldOf(postgres, replica, missing)
    from = rows.length < fullWindow ? to : (rows.at(-1)?.pos ?? to)
    await postgres.transaction(async (client) => {
      await quarantine(
        client,
        { replica, now: true },
        missing
          .filter(({ type, id }) => !held.has(`${type} ${id}`))
          .map(({ type, id }) => ({ type, id, kind: 'failed', reason: 'the answer to its window was lost' })),
      )
      await saveHeard(client, { replica, shard, pos: from, even: false })
    })
    link.heard[shard] = from
  }
}

/** The replica stands elsewhere, or cannot take what was sent: then it is sent in halves, down to the one at fault. */
async function recover(link: Link, window: Window, error: unknown): Promise<void> {
  const refusal = refusalOf(error)
  if (!refusal) throw error
  const { shard, from, to, rows } = window
  if (refusal.code === 'SYNC_CURSOR') {
    const cursor = Number(refusal.values['cursor'])
    if (!Number.isSafeInteger(cursor)) throw error
    link.cursors[shard] = cursor
    link.heard[shard] = Math.min(link.heard[shard] ?? 0, cursor)
    return
  }
  if (!isOfRequest(refusal.status)) throw error
  const [only, second] = rows
  if (second) {
    link.windows[shard] = Math.max(1, Math.floor(rows.length / 2))
    return
  }
  if (!only) throw error
  const unsent: Quarantined[] = [{ type: only.type, id: only.id, kind: 'failed', reason: messageOf(error) }]
  await quarantine(link.postgres, { replica: link.replica }, unsent)
  const answer = await link.remote.apply(link.speaker, { shard, window: { from, to }, objects: [] })
  link.cursors[shard] = answer.cursor
  await hear(
    link,
    { shard, pos: answer.cursor },
    { shipment: { objects: [], rows: 0, unsent: [] }, results: [] },
  )
  link.heard[shard] = answer.cursor
}

import { messageOf } from '../../core/errors.ts'
import { closeFuses, judgeAnew } from './fuse.ts'
import type { Link } from './link.ts'
import { isOfObject, pack, plan } from './pack.ts'
import { type Due, dueOf, quarantine } from './quarantine.ts'
import { hear, holdBack } from './replay-shard.ts'
import type { Policies } from './replica-rows.ts'
import { type ChangeRow, readRowsOf } from './window.ts'

export interface RepairOptions {
  /** Instead of those of the replica. */
  policies?: Policies
  /** Deletes that a person has approved are not judged. */
  approved?: boolean
}

/** What came of objects that were sent again, out of their turn. */
export interface Repaired {
  /** Written or removed over there. */
  mended: number
  /** Over there as they are here. */
  current: number
  failed: number
}

/**
 * Sends objects of a shard again that the cursor has gone past. What has changed since comes in its turn and is left out;
 * the replica refuses what is older than what it has.
 */
export async function repair(
  link: Link,
  shard: number,
  rows: readonly ChangeRow[],
  options: RepairOptions = {},
): Promise<Repaired> {
  const total: Repaired = { mended: 0, current: 0, failed: 0 }
  let planned = await plan(
    link,
    rows.filter(({ pos }) => pos <= (link.cursors[shard] ?? 0)),
  )
  const work = async (): Promise<void> => {
    if (!options.approved) {
      const deletes = planned.filter(
        ({ row, planned: { state } }) => row.kind === 'delete' && state !== 'current',
      )
      const held = await holdBack(
        link,
        deletes.map(({ row }) => row),
      )
      planned = planned.filter(({ row }) => !held.has(`${row.type} ${row.id}`))
    }
    while (planned.length > 0) {
      const shipment = await pack(link, planned, options.policies ?? link.policies)
      const { results } = await link.remote.apply(link.speaker, {
        shard,
        window: null,
        objects: shipment.objects,
      })
      await hear(link, { shard, pos: undefined }, { shipment, results })
      for (const { state } of results) {
        if (state === 'applied') total.mended++
        else if (state === 'current' || state === 'stale') total.current++
        else total.failed++
      }
      total.failed += shipment.unsent.length
      planned = planned.slice(shipment.rows)
    }
  }
  await (planned.some(({ row }) => row.kind === 'delete') ? link.deletes(work) : work())
  return total
}

/** The same for objects of any shard, by name. Those that the log does not know are not counted. */
export async function repairAll(
  link: Link,
  objects: readonly { type: string; id: string }[],
  options: RepairOptions = {},
): Promise<Repaired> {
  const total: Repaired = { mended: 0, current: 0, failed: 0 }
  const rows = await readRowsOf(link.postgres, objects)
  for (const [shard, group] of Map.groupBy(rows, (row) => row.shard)) {
    for (let start = 0; start < group.length; start += 500) {
      const { mended, current, failed } = await repair(link, shard, group.slice(start, start + 500), options)
      total.mended += mended
      total.current += current
      total.failed += failed
    }
  }
  return total
}

const duesOfBite = 500

/** What is in the quarantine and due: failed ones each on its own, the others by shard. @returns how many were tried */
export async function retryDue(link: Link): Promise<number> {
  const { postgres, replica, clock } = link
  await judgeAnew(postgres, replica, clock.now())
  let total = 0
  for (let isMore = true; isMore && !link.signal.aborted; ) {
    const due = await dueOf(postgres, replica, duesOfBite)
    // The turn of the others is yet to come.
    const tried = due.filter(({ shard, pos }) => pos <= (link.cursors[shard] ?? 0))
    await retryAll(link, tried)
    total += tried.length
    isMore = due.length === duesOfBite && tried.length > 0
  }
  await closeFuses(postgres, replica)
  return total
}

async function retryAll(link: Link, tried: readonly Due[]): Promise<void> {
  for (const [shard, group] of Map.groupBy(tried, (row) => row.shard)) {
    const held = group.filter(({ was }) => was === 'held')
    if (held.length > 0) await repair(link, shard, held, { approved: true })
    for (const row of group) if (row.was !== 'held') await retryOne(link, shard, row)
  }
}

async function retryOne(link: Link, shard: number, row: ChangeRow): Promise<void> {
  try {
    await repair(link, shard, [row])
  } catch (error) {
    if (!isOfObject(error)) throw error
    const { type, id } = row
    await quarantine(link.postgres, { replica: link.replica }, [
      { type, id, kind: 'failed', reason: messageOf(error) },
    ])
  }
}

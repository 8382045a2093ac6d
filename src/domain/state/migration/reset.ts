import { MIGRATION_PHASE_WRONG, STATE_TARGET_FOREIGN } from '../errors.ts'
import type { MovableStore } from '../store.ts'
import { gateOf, type Phase } from './migration.ts'
import type { Migrations } from './migrations.ts'
import type { Figures } from './rows/figures.ts'

export interface ResetTools {
  open(url: string): MovableStore
  migrations: Migrations
  figures: Figures
}

const resettable: Phase[] = ['copying', 'ready', 'cancelled', 'rolled-back']

/** Step 13 of the protocol. The rows go last, so that a reset that was cut short can be repeated. */
export async function resetMigration(
  { open, migrations, figures }: ResetTools,
  id: string,
  onProgress: (devices: number) => void,
): Promise<number> {
  const migration = await migrations.get(id)
  const { phase } = migration
  if (phase === 'scanning' || phase === 'scanned') {
    await migrations.remove(id)
    return 0
  }
  const wrong = { id, phase, action: 'reset', wanted: resettable.join(', ') }
  if (!resettable.includes(phase)) throw MIGRATION_PHASE_WRONG(wrong)
  if (!(await migrations.lead(id, `reset ${id}`))) {
    throw MIGRATION_PHASE_WRONG({
      ...wrong,
      phase: `${phase} and an engine works on it`,
      wanted: 'cancelled first',
    })
  }
  await migrations.advance(id, ['copying', 'ready'], {
    phase: 'cancelled',
    wanted: null,
    stamps: ['finished_at'],
  })
  const target = open(migration.targetUrl)
  try {
    // One that never copied never marked its target, either.
    const { total } = (await figures.progress(id)).devices
    const removed =
      total === 0 ? await unmark(target, gateOf(id)) : await empty(target, gateOf(id), onProgress)
    await migrations.remove(id)
    return removed
  } finally {
    await migrations.unlead(id, `reset ${id}`)
    await target.close()
  }
}

async function unmark(target: MovableStore, gate: string): Promise<number> {
  const version = await target.version().catch(() => undefined)
  if (version === gate) await target.dismantle()
  return 0
}

async function empty(
  target: MovableStore,
  gate: string,
  onProgress: (devices: number) => void,
): Promise<number> {
  const version = await target.version().catch(() => undefined)
  // Never prepared, or emptied by a reset before this one.
  if (version === undefined) return 0
  if (version !== gate) {
    const reason = 'it does not bear the mark of this migration, so nothing in it was touched'
    throw STATE_TARGET_FOREIGN({ place: target.place, reason })
  }
  let removed = 0
  for await (const device of target.devices()) {
    await target.replace([{ device, fill: nothing, keep: new Set() }])
    onProgress(++removed)
  }
  const links = []
  for await (const link of target.links()) links.push(link)
  await target.applyLinks({ add: [], remove: links })
  await target.dismantle()
  return removed
}

async function* nothing() {
  // A device without states.
}

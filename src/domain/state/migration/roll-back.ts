import { MIGRATION_FAILED } from '../errors.ts'
import { openVersion } from '../store.ts'
import { drained } from './cut-over.ts'
import { gateOf, type Migration } from './migration.ts'
import { type Bench, runRound } from './round.ts'

/**
 * Step 12 of the protocol: brings the devices that wrote to the target back to the source, verified, and opens it.
 * Both gates are closed until the last line; every line can be repeated.
 */
export async function rollBack(bench: Bench, migration: Migration): Promise<void> {
  const { migrations, source, target } = bench
  const { id } = migration
  const gate = gateOf(id)
  if ((await source.version()) === openVersion) return finish(bench, id)
  if ((await target.version()) !== gate) {
    await bench.assertLeading(id)
    await target.setVersion(gate)
    await migrations.advance(id, ['rolling-back'], {
      stamps: ['gate_closed_at'],
      clear: ['drained_at', 'verified_at'],
    })
  }
  // Not quiet: whoever still writes to the target does so past its gate, and waiting longer helps nobody.
  const quiet = await drained(bench, target, migration)
  if (!quiet) bench.log.warn({ migration: id }, 'the target is not quiet; rolling back all the same')
  const differing = await runRound(bench, migration, {
    direction: 'back',
    fresh: true,
    merge: migration.storm !== undefined,
  })
  await migrations.advance(id, ['rolling-back'], { backDevices: differing, stamps: ['drained_at'] })
  const [failed] = await bench.figures.failed(id, 1)
  if (failed) {
    const reason = `the device ${failed.device} could not be brought back: ${failed.error} Both gates stay closed.`
    const { code, message } = MIGRATION_FAILED({ id, reason })
    await migrations.halt(id, { code, message })
    return
  }
  bench.signal.throwIfAborted()
  await bench.assertLeading(id)
  await source.setVersion(openVersion)
  await finish(bench, id)
}

async function finish(bench: Bench, id: string): Promise<void> {
  await bench.migrations.advance(id, ['rolling-back'], {
    phase: 'rolled-back',
    wanted: null,
    stamps: ['rolled_back_at', 'finished_at'],
    stopGate: true,
    note: null,
  })
  bench.log.info({ migration: id }, 'rolled back: the source serves')
}

import { type MovableStore, openVersion } from '../store.ts'
import { gateOf, type Migration } from './migration.ts'
import { type Bench, runRound } from './round.ts'

/**
 * Steps 7 to 10 of the protocol, from whichever of them an engine before left off. Ends in `watching`, or back in
 * `ready` with the reason and the source open.
 */
export async function cutOver(bench: Bench, migration: Migration): Promise<void> {
  const { migrations, source, target } = bench
  const { id } = migration
  const gate = gateOf(id)
  if ((await target.version()) === openVersion && (await source.version()) === gate) return finish(bench, id)
  if ((await source.version()) !== gate) {
    // Outside of the gate: what has piled up since the last round must not be done while phones wait.
    await runRound(bench, migration, { direction: 'out', fresh: false })
    await bench.assertLeading(id)
    await source.setVersion(gate)
    await migrations.advance(id, ['cutting-over'], {
      stamps: ['gate_closed_at'],
      clear: ['drained_at', 'verified_at'],
    })
    bench.log.info({ migration: id }, 'the gate of the source is closed')
  }
  if (!(await drained(bench, source, migration))) {
    return giveUp(
      bench,
      id,
      `the source was never quiet for ${migration.options.drainQuietMs} ms: end the running requests (reload the web server) and cut over again`,
    )
  }
  await migrations.advance(id, ['cutting-over'], { stamps: ['drained_at'] })
  const failedBefore = (await bench.figures.progress(id)).devices.failed
  await runRound(bench, migration, { direction: 'out', fresh: true })
  const { failed } = (await bench.figures.progress(id)).devices
  if (failed > failedBefore) {
    const [first] = await bench.figures.failed(id, 1)
    return giveUp(
      bench,
      id,
      `${failed} devices could not be copied (${first?.device ?? ''}: ${first?.error ?? ''})`,
    )
  }
  await migrations.advance(id, ['cutting-over'], { stamps: ['verified_at'] })
  bench.signal.throwIfAborted()
  await bench.assertLeading(id)
  await target.setVersion(openVersion)
  await finish(bench, id)
}

async function finish(bench: Bench, id: string): Promise<void> {
  await bench.migrations.advance(id, ['cutting-over'], {
    phase: 'watching',
    wanted: null,
    stamps: ['cut_over_at'],
    stopGate: true,
    note: null,
  })
  bench.log.info({ migration: id }, 'cut over: the target serves')
}

async function giveUp(bench: Bench, id: string, reason: string): Promise<void> {
  await bench.assertLeading(id)
  await bench.source.setVersion(openVersion)
  await bench.migrations.advance(id, ['cutting-over'], {
    phase: 'ready',
    wanted: null,
    stopGate: true,
    note: `the cut-over was called off and the source is open again: ${reason}`,
  })
  bench.log.warn({ migration: id, reason }, 'the cut-over was called off')
}

/**
 * Waits until the store was without a change for long enough: requests that passed the gate before it closed still
 * write.
 *
 * @returns false when that took too long
 */
export async function drained(bench: Bench, store: MovableStore, migration: Migration): Promise<boolean> {
  const { clock, signal } = bench
  const { drainQuietMs, drainMaxMs } = migration.options
  const startedAt = clock.monotonicMs()
  let quietSince = startedAt
  let last = await store.activity()
  while (clock.monotonicMs() - quietSince < drainQuietMs) {
    if (clock.monotonicMs() - startedAt > drainMaxMs) return false
    await clock.sleep(Math.min(100, drainQuietMs), signal)
    signal.throwIfAborted()
    const now = await store.activity()
    if (now !== last) quietSince = clock.monotonicMs()
    last = now
  }
  return true
}

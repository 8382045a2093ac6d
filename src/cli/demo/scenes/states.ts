import { execFile } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { createSystemClock } from '../../../core/clock.ts'
import { sha256 } from '../../../core/digest.ts'
import { keyPath, type StateKey } from '../../../domain/state/state-key.ts'
import { openVersion, type StateStore } from '../../../domain/state/store.ts'
import { createFileStore } from '../../../domain/state/stores/file.ts'
import { type Scene, type Stage, until } from '../stage.ts'

/** A state directory that Z-Push wrote. */
const sample = fileURLToPath(new URL('../../../../test/fixtures/zpush/states-clean.tar.gz', import.meta.url))

interface View {
  phase: string
  note?: string
  counts: { moved: number; states: number }
  gate: { lastClosedMs?: number }
}

/** The states of phones move from Z-Push's directory to Baton's store while a phone syncs, and back. */
export const states: Scene = {
  title: 'The states of phones move to another store while they sync',
  async play(stage) {
    await promisify(execFile)('tar', ['-xzpf', sample, '-C', stage.folder])
    const root = `${stage.folder}/clean`
    const source = createFileStore({ root, clock: createSystemClock() })
    const phone = startPhone(source)
    try {
      const { id } = await stage.client.call<{ id: string }>('POST', '/v1/migrations', {
        from: `file:${root}`,
        to: stage.databaseUrl,
        workers: 2,
      })
      const inPhase = (phase: string): Promise<View> =>
        until(`the migration to be ${phase}`, 60_000, async () => {
          const view = await stage.client.call<View>('GET', `/v1/migrations/${id}`)
          return view.phase === phase ? view : undefined
        })
      await inPhase('ready')
      const written = phone.written()
      await stage.client.call('POST', `/v1/migrations/${id}/cut-over`)
      const over = await inPhase('watching')
      await phone.stop()
      await compare(stage, source, over)
      stage.promise(
        `a phone wrote ${written} times meanwhile, and was turned away for ${over.gate.lastClosedMs} ms`,
        written > 0 && phone.refused() > 0,
      )
      await wayBack(stage, source, () =>
        stage.client.call('POST', `/v1/migrations/${id}/roll-back`).then(() => inPhase('rolled-back')),
      )
    } finally {
      await phone.stop()
      await source.close()
    }
  },
}

/** Every state, as each side gives it now. */
async function compare(stage: Stage, source: StateStore, { counts }: View): Promise<void> {
  let same = 0
  let devices = 0
  for await (const device of source.devices()) {
    devices++
    for (const { key } of await source.list(device)) {
      const mine = await source.get(device, key)
      const theirs = await stage.client.bytes(`/v1/devices/${device}/states/${keyPath(key)}`)
      if (mine && sha256(mine.bytes) === sha256(theirs)) same++
    }
  }
  stage.promise(
    `${same} states of ${devices} devices are in the new store, byte for byte, as the old one has them`,
    same > 0 && same === counts.states && devices === counts.moved,
  )
}

async function wayBack(stage: Stage, source: StateStore, rollBack: () => Promise<unknown>): Promise<void> {
  const device = await firstOf(source)
  const key: StateKey = { type: '', uuid: randomUUID(), counter: 1 }
  const text = 'written to the new store'
  await stage.client.put(`/v1/devices/${device}/states/${keyPath(key)}`, Buffer.from(text))
  await rollBack()
  const back = await source.get(device, key)
  stage.promise(
    'rolled back: the old store is open again, and has what was written to the new one',
    back?.bytes.toString() === text && (await source.version()) === openVersion,
  )
}

async function firstOf(store: StateStore): Promise<string> {
  for await (const device of store.devices()) return device
  throw new Error('the sample has no devices')
}

/** Looks at the version before each write, as Z-Push does: another one than its own turns the phone away. */
function startPhone(store: StateStore) {
  let written = 0
  let refused = 0
  let going = true
  const sync = async (): Promise<void> => {
    const device = await firstOf(store)
    const uuid = randomUUID()
    while (going) {
      if ((await store.version()) === openVersion) {
        const key: StateKey = { type: '', uuid, counter: written + 1 }
        await store.set(device, key, Buffer.from(`sync ${written}`))
        written++
      } else refused++
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
  const syncing = sync()
  return {
    written: () => written,
    refused: () => refused,
    stop: async () => {
      going = false
      await syncing
    },
  }
}

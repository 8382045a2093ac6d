import { STATE_DEVICE_BUSY, STATE_NOT_FOUND, STATE_UNEQUAL } from '../errors.ts'
import { createDeviceInspector, type DeviceInspector } from '../inspect/inspector.ts'
import { kindOf, type Trouble } from '../inspect/troubles.ts'
import { keyText } from '../state-key.ts'
import type { Digest, MovableStore, Snapshot, State } from '../store.ts'
import type { QuarantineLine } from './migration.ts'
import { digestOf } from './migrations.ts'
import type { RateLimit } from './rate-limit.ts'

export interface DeviceCopy {
  from: MovableStore
  to: MovableStore
  device: string
  /** False: a listing a second old will do, since a later round looks again. */
  fresh: boolean
  /** States (keyText) of `to` that are not to be touched. */
  keep: ReadonlySet<string>
  /** Whether broken content is held back; a roll-back brings everything. */
  inspect: boolean
  limit: RateLimit
  signal: AbortSignal
}

export interface CopiedDevice {
  /** Of the sides when they were read back and found equal. */
  from: string
  to: string
  states: number
  bytes: number
  digest: string
  users: Buffer[]
  landmarks: string[]
  quarantine: QuarantineLine[]
}

const tries = 3

/**
 * Step 4 of the protocol for one device: replaces what `to` has by what `from` has, reads both back and compares the
 * sha256 of every state.
 *
 * @throws STATE_DEVICE_BUSY when it changed during each of three tries
 * @throws STATE_UNEQUAL when the sides differ although nothing changed
 */
export async function copyDevice(copy: DeviceCopy): Promise<CopiedDevice> {
  for (let attempt = 1; attempt <= tries; attempt++) {
    const copied = await tryCopy(copy, attempt > 1)
    if (copied) return copied
    copy.signal.throwIfAborted()
  }
  throw STATE_DEVICE_BUSY({ device: copy.device, tries })
}

/** @returns undefined when the device changed meanwhile */
async function tryCopy(copy: DeviceCopy, again: boolean): Promise<CopiedDevice | undefined> {
  const { from, to, device } = copy
  const fresh = copy.fresh || again
  const inspector = createDeviceInspector(device, {
    serialized: copy.inspect && from.serialized,
    refuses: (item) => to.refuses(item),
  })
  const held = new Set<string>()
  let before = ''
  const fill = async function* (): AsyncIterable<State> {
    // Within the target's lock: whoever replaces later has read later.
    const snapshot = await from.snapshot(device, fresh)
    before = snapshot.fingerprint
    yield* soundStates(snapshot, { copy, inspector, held })
  }
  try {
    await to.replace(device, fill, copy.keep)
  } catch (error) {
    if (STATE_NOT_FOUND.is(error)) return undefined
    throw error
  }
  return compare(copy, { before, held, inspector, fresh })
}

interface Passing {
  copy: DeviceCopy
  inspector: DeviceInspector
  held: Set<string>
}

async function* soundStates(snapshot: Snapshot, { copy, inspector, held }: Passing): AsyncIterable<State> {
  for await (const state of snapshot.states()) {
    copy.signal.throwIfAborted()
    await copy.limit.take(state.bytes.length, copy.signal)
    if (inspector.see(state) === undefined) yield state
    else held.add(keyText(state.key))
  }
}

interface Attempt {
  before: string
  held: Set<string>
  inspector: DeviceInspector
  fresh: boolean
}

async function compare(copy: DeviceCopy, attempt: Attempt): Promise<CopiedDevice | undefined> {
  const { from, to, device } = copy
  const [source, target] = await Promise.all([
    from.digests(device, attempt.fresh).catch((error: unknown) => {
      if (STATE_NOT_FOUND.is(error)) return undefined
      throw error
    }),
    to.digests(device, true),
  ])
  if (!source) return undefined
  const expected = linesOf(source.digests.filter(({ key }) => !attempt.held.has(keyText(key))))
  const actual = linesOf(
    target.digests.filter(({ key }) => expected.has(keyText(key)) || !copy.keep.has(keyText(key))),
  )
  const differing = [...new Set([...expected.keys(), ...actual.keys()])].filter(
    (key) => expected.get(key) !== actual.get(key),
  )
  if (differing.length > 0) {
    if (source.fingerprint !== attempt.before) return undefined
    throw STATE_UNEQUAL({ device, keys: differing.slice(0, 5).join(', ') })
  }
  const report = attempt.inspector.finish()
  return {
    from: source.fingerprint,
    to: target.fingerprint,
    states: expected.size,
    bytes: source.digests.reduce(
      (sum, each) => sum + (attempt.held.has(keyText(each.key)) ? 0 : each.size),
      0,
    ),
    digest: digestOf([...expected].map(([key, line]) => `${key} ${line}`)),
    users: report.users,
    landmarks: report.landmarks,
    quarantine: report.troubles.map(lineOf),
  }
}

const linesOf = (digests: Digest[]): Map<string, string> =>
  new Map(digests.map((digest) => [keyText(digest.key), `${digest.size} ${digest.sha256}`]))

export const lineOf = (trouble: Trouble): QuarantineLine => ({
  device: trouble.device,
  name: trouble.name,
  reason: trouble.code,
  held: kindOf(trouble.code).severity === 'held',
  size: trouble.size,
  sha256: trouble.sha256,
  key: trouble.key,
})

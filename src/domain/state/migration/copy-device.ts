import { digestOf, sumOf } from '../digest-of.ts'
import { STATE_DEVICE_BUSY, STATE_NOT_FOUND, STATE_UNEQUAL } from '../errors.ts'
import { createDeviceInspector, type DeviceInspector } from '../inspect/inspector.ts'
import { kindOf, type Trouble } from '../inspect/troubles.ts'
import { keyText } from '../state-key.ts'
import type {
  DeviceDigests,
  DeviceSum,
  Digest,
  MovableStore,
  Replacement,
  Snapshot,
  State,
} from '../store.ts'
import type { QuarantineLine } from './migration.ts'
import type { RateLimit } from './rate-limit.ts'

export interface CopyTools {
  from: MovableStore
  to: MovableStore
  /** False: a listing a second old will do, since a later round looks again. */
  fresh: boolean
  /** Whether broken content is held back; a roll-back brings everything. */
  inspect: boolean
  limit: RateLimit
  signal: AbortSignal
}

export interface DeviceCopy {
  device: string
  /** States (keyText) of `to` that are not to be touched. */
  keep: ReadonlySet<string>
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
export async function copyDevice(tools: CopyTools, copy: DeviceCopy): Promise<CopiedDevice> {
  for (let attempt = 1; attempt <= tries; attempt++) {
    const copied = await copyTogether({ ...tools, fresh: tools.fresh || attempt > 1 }, [copy])
    const result = copied.get(copy.device)
    if (result) return result
    tools.signal.throwIfAborted()
  }
  throw STATE_DEVICE_BUSY({ device: copy.device, tries })
}

/**
 * The same for several devices in one transaction: for small ones the way to and from the stores costs more than the
 * work.
 *
 * @returns those that are done; a device that changed meanwhile is not among them, and was perhaps not replaced
 * @throws STATE_UNEQUAL
 */
export async function copyTogether(
  tools: CopyTools,
  copies: DeviceCopy[],
): Promise<Map<string, CopiedDevice>> {
  const attempts = copies.map((copy) => prepare(tools, copy))
  try {
    await tools.to.replace(attempts)
    const devices = copies.map(({ device }) => device)
    const [sources, targets] = await Promise.all([
      tools.from.digests(devices, tools.fresh),
      tools.to.sums(devices, true),
    ])
    const done = new Map<string, CopiedDevice>()
    for (const attempt of attempts) {
      const { device } = attempt
      const copied = await compare(
        tools,
        attempt,
        sources.get(device) ?? empty,
        targets.get(device) ?? nothing,
      )
      if (copied) done.set(device, copied)
    }
    return done
  } catch (error) {
    // A state was removed between the listing and the reading.
    if (STATE_NOT_FOUND.is(error)) return new Map()
    throw error
  }
}

interface Attempt extends Replacement {
  /** The fingerprint before the bytes were read. */
  before: string
  held: Set<string>
  inspector: DeviceInspector
}

function prepare(tools: CopyTools, { device, keep }: DeviceCopy): Attempt {
  const { from, to, fresh } = tools
  const inspector = createDeviceInspector(device, {
    serialized: tools.inspect && from.serialized,
    refuses: (item) => to.refuses(item),
  })
  const attempt: Attempt = { device, keep, inspector, held: new Set(), before: '', fill }
  async function* fill(): AsyncIterable<State> {
    // Within the target's lock: whoever replaces later has read later.
    const snapshot = await from.snapshot(device, fresh)
    attempt.before = snapshot.fingerprint
    yield* soundStates(snapshot, attempt, tools)
  }
  return attempt
}

async function* soundStates(
  snapshot: Snapshot,
  { inspector, held }: Attempt,
  { limit, signal }: CopyTools,
): AsyncIterable<State> {
  for await (const state of snapshot.states()) {
    signal.throwIfAborted()
    await limit.take(state.bytes.length, signal)
    if (inspector.see(state) === undefined) yield state
    else held.add(keyText(state.key))
  }
}

const empty: DeviceDigests = { fingerprint: '', digests: [] }
const nothing: DeviceSum = sumOf(empty)

/** @returns undefined when the device changed meanwhile */
async function compare(
  tools: CopyTools,
  attempt: Attempt,
  source: DeviceDigests,
  target: DeviceSum,
): Promise<CopiedDevice | undefined> {
  const { device, held, before, inspector } = attempt
  const moved = source.digests.filter(({ key }) => held.size === 0 || !held.has(keyText(key)))
  const digest = digestOf(moved)
  if (digest !== target.digest) {
    const differing = await findDiffering(tools, attempt, moved)
    if (differing.length > 0 && source.fingerprint !== before) return undefined
    if (differing.length > 0) throw STATE_UNEQUAL({ device, keys: differing.slice(0, 5).join(', ') })
  }
  const report = inspector.finish()
  return {
    from: source.fingerprint,
    to: target.fingerprint,
    states: moved.length,
    bytes: moved.reduce((sum, each) => sum + each.size, 0),
    digest,
    users: report.users,
    landmarks: report.landmarks,
    quarantine: report.troubles.map(lineOf),
  }
}

/** State by state: what was to be kept, and double rows, make the sums differ although all is right. */
async function findDiffering(
  tools: CopyTools,
  { device, keep }: Attempt,
  moved: Digest[],
): Promise<string[]> {
  const target = (await tools.to.digests([device], true)).get(device) ?? empty
  const expected = linesOf(moved)
  const actual = linesOf(
    target.digests.filter(({ key }) => expected.has(keyText(key)) || !keep.has(keyText(key))),
  )
  return [...new Set([...expected.keys(), ...actual.keys()])].filter(
    (key) => expected.get(key) !== actual.get(key),
  )
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

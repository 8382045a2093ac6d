import { keyText } from '../state-key.ts'
import type { Digest, MovableStore } from '../store.ts'

export interface Verification {
  devices: number
  /** States whose sha256 is the same on both sides. */
  equal: number
  /** Devices that have something on one side alone, or something else; the first hundred. */
  differing: { device: string; missing: string[]; added: string[]; changed: string[] }[]
  differingDevices: number
  /** Devices that wrote to the target since they were moved: those are to differ. */
  movedOn: number
}

export interface VerifyOptions {
  source: MovableStore
  target: MovableStore
  /** Keys (keyText) of the device's states that were not to be moved. */
  heldKeys(device: string): Promise<Set<string>>
  /** Whether the device, with this fingerprint of the target, has written there since. */
  movedOn(device: string, fingerprint: string): Promise<boolean>
  signal?: AbortSignal
  onProgress?(done: { devices: number; states: number }): void
}

const listed = 100

/** Reads every state of both sides and compares. Changes nothing. */
export async function verifyStores(options: VerifyOptions): Promise<Verification> {
  const { source, target } = options
  const result: Verification = { devices: 0, equal: 0, differing: [], differingDevices: 0, movedOn: 0 }
  for await (const survey of source.survey(new Map(), options.signal)) {
    for (const { device } of survey.devices) await compare(device, result, options)
  }
  // What is in the target alone has not been seen yet.
  for await (const survey of target.survey(new Map(), options.signal)) {
    for (const { device } of survey.devices) {
      if ((await source.snapshot(device, false)).entries.length === 0) await compare(device, result, options)
    }
  }
  return result
}

async function compare(device: string, result: Verification, options: VerifyOptions): Promise<void> {
  options.signal?.throwIfAborted()
  const [sources, targets, held] = await Promise.all([
    options.source.digests([device], false),
    options.target.digests([device], true),
    options.heldKeys(device),
  ])
  const [ours, theirs] = [sources.get(device), targets.get(device)]
  if (!ours || !theirs) return
  const expected = linesOf(ours.digests.filter(({ key }) => !held.has(keyText(key))))
  const actual = linesOf(theirs.digests)
  const missing = [...expected.keys()].filter((key) => !actual.has(key))
  const added = [...actual.keys()].filter((key) => !expected.has(key) && !held.has(key))
  const changed = [...expected].filter(([key, line]) => actual.has(key) && actual.get(key) !== line)
  result.devices++
  result.equal += expected.size - missing.length - changed.length
  options.onProgress?.({ devices: result.devices, states: result.equal })
  if (missing.length + added.length + changed.length === 0) return
  if (await options.movedOn(device, theirs.fingerprint)) {
    result.movedOn++
    return
  }
  result.differingDevices++
  if (result.differing.length >= listed) return
  result.differing.push({
    device,
    missing: missing.slice(0, 20),
    added: added.slice(0, 20),
    changed: changed.slice(0, 20).map(([key]) => key),
  })
}

const linesOf = (digests: Digest[]): Map<string, string> =>
  new Map(digests.map((digest) => [keyText(digest.key), `${digest.size} ${digest.sha256}`]))

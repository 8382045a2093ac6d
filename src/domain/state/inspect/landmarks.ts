import type { StateKey } from '../state-key.ts'

/**
 * What a phone in good order never loses: its device data, the data of each folder, and of each folder the newest
 * counter or a later one. (The older counter goes when the phone has confirmed the newer.) A folder that its
 * user removed loses all of that as well; so a few losses are life, and many are a storm.
 */
export function landmarksOf(keys: Iterable<StateKey>): string[] {
  const landmarks: string[] = []
  for (const [uuid, counter] of newestOf(keys)) landmarks.push(`newest ${uuid} ${counter}`)
  for (const key of keys) {
    if (key.type === 'devicedata') landmarks.push('devicedata')
    if (key.type === 'fd') landmarks.push(`fd ${key.uuid}`)
  }
  return landmarks
}

/** Whether any landmark is missing among the states that there are now. */
export function lacks(landmarks: string[], keys: StateKey[]): boolean {
  const newest = newestOf(keys)
  const present = new Set(landmarksOf(keys))
  return landmarks.some((landmark) => {
    const [kind, uuid = '', counter] = landmark.split(' ')
    return kind === 'newest' ? (newest.get(uuid) ?? -1) < Number(counter) : !present.has(landmark)
  })
}

function newestOf(keys: Iterable<StateKey>): Map<string, number> {
  const newest = new Map<string, number>()
  for (const key of keys) {
    if (key.type === '') newest.set(key.uuid, Math.max(key.counter, newest.get(key.uuid) ?? 0))
  }
  return newest
}

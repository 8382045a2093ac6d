import { randomBytes, randomInt, randomUUID } from 'node:crypto'
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { bucketOf, type StateKey } from '../../src/domain/state/state-key.ts'
import { openVersion, type StateStore } from '../../src/domain/state/store.ts'
import { formatFileName } from '../../src/domain/state/stores/file/name.ts'
import { writeUsers, writeVersion } from '../../src/domain/state/stores/file/users.ts'

const text = (value: string): string => `s:${Buffer.byteLength(value)}:"${value}";`

/** Bytes as a backend would write them, of about that size. */
export const content = (size: number): Buffer =>
  Buffer.from(
    text(
      randomBytes(Math.max(1, Math.ceil(size / 2)))
        .toString('hex')
        .slice(0, Math.max(1, size)),
    ),
  )

export const deviceName = (index: number): string => `phone${index.toString(36).padStart(5, '0')}`

export interface Planting {
  root: string
  devices: number
  /** Sync states of each, besides devicedata and folder data. */
  statesPerDevice: number
  /** Of a state, bytes; a third more or less. */
  size?: number
}

/** A directory as Z-Push leaves it, written in one go. @returns how many states it has */
export function plant({ root, devices, statesPerDevice, size = 1_200 }: Planting): number {
  const users = new Map<string, string[]>()
  let states = 0
  const write = (device: string, key: StateKey, bytes: Buffer): void => {
    writeFileSync(path.join(root, bucketOf(device), formatFileName(device, key)), bytes)
    states++
  }
  mkdirSync(root, { recursive: true })
  for (let index = 0; index < devices; index++) {
    const device = deviceName(index)
    mkdirSync(path.join(root, bucketOf(device)), { recursive: true })
    write(device, { type: 'devicedata', uuid: '', counter: 0 }, Buffer.from(text(device)))
    for (let left = statesPerDevice; left > 0; left -= 2) {
      const uuid = randomUUID()
      write(device, { type: 'fd', uuid, counter: 0 }, Buffer.from(text(uuid)))
      for (const counter of left > 1 ? [7, 8] : [7]) {
        write(device, { type: '', uuid, counter }, content(size * (0.67 + Math.random() * 0.66)))
      }
    }
    const user = `user${index % 97}`
    users.set(user, [...(users.get(user) ?? []), device])
  }
  writeFileSync(path.join(root, 'users'), writeUsers(users))
  writeFileSync(path.join(root, 'settings'), writeVersion(openVersion))
  return states
}

export interface Phones {
  /** Requests that wrote, and those that were turned away by the gate. */
  readonly served: number
  readonly refused: number
  /** Lets what is under way finish. */
  stop(): Promise<void>
}

export interface PhonesOptions {
  store: StateStore
  /** Known at the start. */
  devices: string[]
  /** Requests side by side, and the pause of each between two, ms. */
  lanes: number
  pauseMs: number
}

/**
 * Phones that sync: each request looks at the version once, as Z-Push does, and then writes a new counter, cleans the
 * older, and now and then begins a device, a folder or a link, or ends one. What has passed the gate goes on.
 */
export function startPhones(options: PhonesOptions): Phones {
  const { store } = options
  const devices = [...options.devices]
  const busy = new Set<string>()
  let [served, refused, stopped, begun] = [0, 0, false, 0]

  const request = async (): Promise<void> => {
    if ((await store.version()) !== openVersion) {
      refused++
      return
    }
    const device = choose(
      devices,
      busy,
      () => `new${(++begun).toString(36)}x${randomBytes(2).toString('hex')}`,
    )
    busy.add(device)
    try {
      // Work goes on after the gate was passed.
      await pause(randomInt(30))
      await write(store, device)
      served++
    } finally {
      busy.delete(device)
    }
  }

  const lane = async (): Promise<void> => {
    while (!stopped) {
      await request()
      await pause(options.pauseMs)
    }
  }
  const running = Promise.all(Array.from({ length: options.lanes }, lane))
  return {
    get served() {
      return served
    },
    get refused() {
      return refused
    },
    stop: async () => {
      stopped = true
      await running
    },
  }
}

/** Z-Push serves one request of a device at a time, as a rule. */
function choose(devices: string[], busy: Set<string>, begin: () => string): string {
  if (Math.random() < 0.04) {
    const device = begin()
    devices.push(device)
    return device
  }
  for (;;) {
    const device = devices[randomInt(devices.length)]
    if (device !== undefined && !busy.has(device)) return device
  }
}

async function write(store: StateStore, device: string): Promise<void> {
  const entries = await store.list(device)
  const folders = [...new Set(entries.filter(({ key }) => key.type === '').map(({ key }) => key.uuid))]
  const fresh = folders.length === 0 || Math.random() < 0.05
  const uuid = fresh ? randomUUID() : (folders[randomInt(folders.length)] ?? randomUUID())
  const counters = entries
    .filter(({ key }) => key.type === '' && key.uuid === uuid)
    .map(({ key }) => key.counter)
  const newest = Math.max(0, ...counters)
  if (entries.length === 0) await store.link(Buffer.from(`user${randomInt(97)}`), device)
  if (newest > 0) await store.clean(device, { type: '', uuid, counter: newest })
  await store.set(device, { type: '', uuid, counter: newest + 1 }, content(randomInt(50, 3_000)))
  await store.set(device, { type: 'fd', uuid, counter: 0 }, Buffer.from(text(`${uuid} ${newest + 1}`)))
  if (entries.length === 0 || Math.random() < 0.2) {
    const key: StateKey = { type: 'devicedata', uuid: '', counter: 0 }
    await store.set(device, key, Buffer.from(text(`${device} ${newest}`)))
  }
  if (folders.length > 2 && Math.random() < 0.03) {
    const gone = folders[0] ?? ''
    await store.clean(device, { type: '', uuid: gone, counter: 0 })
    await store.clean(device, { type: 'fd', uuid: gone, counter: 0 })
  }
  if (Math.random() < 0.02) await store.link(Buffer.from(`guest${randomInt(9)}`), device)
  if (Math.random() < 0.01) await store.unlink(Buffer.from(`guest${randomInt(9)}`), device)
}

import { createReadStream } from 'node:fs'
import path from 'node:path'
import type { Clock } from '../../../core/clock.ts'
import { sumOf } from '../digest-of.ts'
import { bucketOf, isZPushDevice, keyText, type StateKey } from '../state-key.ts'
import type { DeviceDigests, Link, MovableStore, StateStore } from '../store.ts'
import { makeFolder, ownerOf, syncFolder, writeAtomically } from './file/atomic-write.ts'
import { checkSource, checkTarget, dismantle, versionOf } from './file/checks.ts'
import { createStateDirectory, pathOf, type StateDirectory } from './file/directory.ts'
import { digestFiles, readStates, replaceFiles, surveyDirectory } from './file/moves.ts'
import { formatFileName, parseFileName } from './file/name.ts'
import { createFileStates } from './file/states.ts'
import {
  addLink,
  readUsers,
  removeLink,
  userBytes,
  userText,
  writeUsers,
  writeVersion,
} from './file/users.ts'

export interface FileStoreOptions {
  root: string
  clock: Clock
}

/**
 * Z-Push's directory of states, byte for byte as FileStateMachine has it (lib/default/filestatemachine.php), with every
 * write synced. Z-Push locks nothing but `users`, by shared memory that only PHP can reach: while Z-Push is at
 * work, links should be changed by Z-Push alone.
 */
export function createFileStore({ root, clock }: FileStoreOptions): MovableStore {
  const directory = createStateDirectory(root, clock)
  const inTurn = createTurns()
  const write = async (file: string, bytes: Buffer): Promise<void> => {
    const owner = await ownerOf(root)
    await makeFolder(path.dirname(file), owner)
    await writeAtomically(file, bytes, owner ? { owner } : {})
    await syncFolder(path.dirname(file))
  }
  const links = createFileLinks(directory, (bytes) => write(path.join(root, 'users'), bytes), inTurn)
  const setVersion = (version: string): Promise<void> =>
    inTurn(() => write(path.join(root, 'settings'), writeVersion(version)))

  const digests = async (devices: string[], fresh: boolean): Promise<Map<string, DeviceDigests>> => {
    const all = new Map<string, DeviceDigests>()
    for (const device of devices) all.set(device, await digestFiles(directory, device, fresh))
    return all
  }

  return {
    kind: 'file',
    place: `file:${root}`,
    serialized: true,
    ...createFileStates({ directory, write, inTurn }),
    ...links,
    version: async () => versionOf(root),
    setVersion,
    close: async () => undefined,
    refuses: (item) => ('key' in item ? refusesState(item) : undefined),
    check: async (role, by) => (role === 'source' ? checkSource(root, by) : checkTarget(root, by)),
    prepare: async (version) => {
      await makeFolder(root, await ownerOf(path.dirname(root)))
      await setVersion(version)
    },
    survey: (known, signal) => surveyDirectory(directory, known, signal),
    snapshot: async (device, fresh) => {
      const bucket = bucketOf(device)
      const leaf = await directory.leaf(bucket, fresh ? 0 : 1_000)
      const stated = await directory.stat(bucket, device, leaf.byDevice.get(device) ?? [])
      return { ...stated, states: () => readStates(directory, bucket, stated.entries) }
    },
    replace: async (devices) => {
      const owner = await ownerOf(root)
      for (const work of devices) await replaceFiles({ ...work, directory, owner })
    },
    digests,
    sums: async (devices, fresh) =>
      new Map([...(await digests(devices, fresh))].map(([device, each]) => [device, sumOf(each)])),
    readStray: (stray) =>
      stray.size > 0 ? createReadStream(pathOf(root, stray.name.toString('latin1'))) : undefined,
    activity: async () => directory.activity(),
    dismantle: () => dismantle(root),
  }
}

/** One after the other: what is read, changed and written as a whole. */
export type Turns = <T>(work: () => Promise<T>) => Promise<T>

type Links = Pick<StateStore, 'devices' | 'links' | 'link' | 'unlink'> & Pick<MovableStore, 'applyLinks'>

function createFileLinks(
  directory: StateDirectory,
  writeFile: (bytes: Buffer) => Promise<void>,
  inTurn: Turns,
): Links {
  const usersFile = path.join(directory.root, 'users')
  const change = (links: { add: Link[]; remove: Link[] }): Promise<boolean> =>
    inTurn(async () => {
      const users = readUsers(usersFile)
      const removed = links.remove.filter((link) => removeLink(users, link)).length
      const added = links.add.filter((link) => addLink(users, link)).length
      if (removed + added === 0) return false
      await writeFile(writeUsers(users))
      return true
    })
  return {
    devices: (user) => listDevices(directory, usersFile, user),
    links: () => listLinks(usersFile),
    link: (user, device) => change({ add: [{ user, device }], remove: [] }),
    unlink: (user, device) => change({ add: [], remove: [{ user, device }] }),
    applyLinks: async (links) => void (await change(links)),
  }
}

async function* listDevices(
  directory: StateDirectory,
  usersFile: string,
  user?: Buffer,
): AsyncIterable<string> {
  if (user) {
    yield* readUsers(usersFile).get(userText(user)) ?? []
    return
  }
  for (const bucket of directory.buckets().buckets) {
    yield* [...(await directory.leaf(bucket)).byDevice.keys()].toSorted()
  }
}

async function* listLinks(usersFile: string): AsyncIterable<Link> {
  for (const [user, devices] of readUsers(usersFile)) {
    for (const device of devices) yield { user: userBytes(user), device }
  }
}

function refusesState(item: { device: string; key: StateKey }): string | undefined {
  if (!isZPushDevice(item.device)) return 'the device id is not one that Z-Push can address'
  const parsed = parseFileName(formatFileName(item.device, item.key))
  return parsed.kind === 'state' && keyText(parsed.key) === keyText(item.key)
    ? undefined
    : 'its key cannot be spelled as a file name of Z-Push'
}

function createTurns(): Turns {
  let last: Promise<unknown> = Promise.resolve()
  return (work) => {
    const next = last.then(work)
    last = next.catch(() => undefined)
    return next
  }
}

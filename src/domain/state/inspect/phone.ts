import { at, isArray, isObject, keyBytes, keyName, type PhpValue } from '../php/value.ts'

/** A folder, or the hierarchy, of a user on a device. */
export interface SyncedFolder {
  /** Its id, or 'hierarchy'. */
  folder: string
  uuid: string
}

export interface PhoneUser {
  name: Buffer
  /** The device id inside; Z-Push looks states up by this one. */
  deviceId: string
  folders: SyncedFolder[]
}

/** StateObject keeps `[checksum, data]`; both ways of serializing it end in that. */
const dataOf = (value: PhpValue | undefined): PhpValue | undefined =>
  isObject(value) ? at(value.content, 1) : undefined

const textOf = (value: PhpValue | undefined): string =>
  Buffer.isBuffer(value) ? value.toString('latin1') : ''

/**
 * Who uses the device, and what each of them syncs, out of its devicedata: a StateObject whose `devices` are ASDevices
 * by user name (lib/core/asdevice.php; in contentdata 1 is the uuid).
 *
 * @returns undefined when it is not devicedata
 */
export function readUsersOf(value: PhpValue | undefined): PhoneUser[] | undefined {
  const devices = at(dataOf(value), 'devices')
  if (!isArray(devices)) return undefined
  return devices.entries.map(([name, device]) => {
    const data = dataOf(device)
    return { name: keyBytes(name), deviceId: textOf(at(data, 'deviceid')), folders: foldersOf(data) }
  })
}

function foldersOf(data: PhpValue | undefined): SyncedFolder[] {
  const folders: SyncedFolder[] = []
  const hierarchy = textOf(at(data, 'hierarchyuuid'))
  if (hierarchy) folders.push({ folder: 'hierarchy', uuid: hierarchy })
  const content = at(data, 'contentdata')
  if (!isArray(content)) return folders
  for (const [folder, details] of content.entries) {
    const uuid = textOf(at(details, 1))
    if (uuid) folders.push({ folder: keyName(folder), uuid })
  }
  return folders
}

/** The counter that the phone's next request carries, out of its folder data (lib/core/syncparameters.php). */
export function nextCounter(value: PhpValue | undefined): number | undefined {
  const data = dataOf(value)
  const next = at(data, 'uuidnewcounter') ?? at(data, 'uuidcounter')
  return typeof next === 'number' ? next : undefined
}

/**
 * Z-Push's types of state (lib/interface/istatemachine.php): '' is a sync state, `devicedata` the device, `fd` folder
 * data, `fs` fail-save, `hc` the hierarchy's cache, `bs` a backend's storage.
 */
export const stateTypes = ['', 'devicedata', 'fd', 'fs', 'hc', 'bs'] as const
export type StateType = (typeof stateTypes)[number]

/** Which state of a device. */
export interface StateKey {
  type: StateType
  /** '' when the state has none. */
  uuid: string
  /** 0 when the state has none. */
  counter: number
}

/** Unambiguous and sortable as text; a type or uuid has no space. */
export const keyText = (key: StateKey): string => `${key.type || 'def'} ${key.uuid || '-'} ${key.counter}`

/** How the key is spelled for people and in paths of the HTTP interface: `def/<uuid>/7`, `devicedata/-/0`. */
export const keyPath = (key: StateKey): string => `${key.type || 'def'}/${key.uuid || '-'}/${key.counter}`

export function parseType(text: string): StateType | undefined {
  if (text === '-' || text === 'def') return ''
  return stateTypes.find((type) => type !== '' && type === text)
}

/** The two folder levels of a device in Z-Push's directory: its last character, then its last but one. */
export const bucketOf = (device: string): string => `${device.slice(-1)}/${device.slice(-2, -1)}`

/** Ids that Z-Push can address: it filters requests to these characters and lower-cases them (lib/request/request.php). */
export const isZPushDevice = (device: string): boolean => /^[a-z0-9]{2,}$/.test(device)

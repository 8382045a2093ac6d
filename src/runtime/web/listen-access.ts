import type { FastifyRequest } from 'fastify'
import type { DeviceTokens, TokenHolder } from '../../domain/push/device-token.ts'
import { DEVICE_TOKEN_INVALID } from '../../domain/push/errors.ts'
import type { Listener } from '../../domain/push/listens.ts'
import { assertNames } from '../../domain/push/parse-registration.ts'
import { KEY_INVALID, KEY_MISSING } from '../../platform/access/errors.ts'
import { type Authenticator, assertRole } from '../../platform/access.ts'
import { INPUT_INVALID } from '../../platform/queues/errors.ts'

/** Who may listen to which devices: whoever has their tokens, or a producer's key. */
export interface ListenAccess {
  /** Those that the query names, each vouched for. @throws INPUT_INVALID, DEVICE_TOKEN_INVALID, KEY_MISSING, KEY_INVALID, ROLE_MISSING */
  listeners(request: FastifyRequest): Promise<Listener[]>
  listener(request: FastifyRequest, device: string): Promise<Listener>
}

const maxDevices = 100

export function createListenAccess(tokens: DeviceTokens, authenticator: Authenticator): ListenAccess {
  const vouch = async (request: FastifyRequest, devices: string[]): Promise<Listener[]> => {
    const given = credentialsOf(request)
    if (given.startsWith('bd1.')) return byTokens(tokens, given.split(','), devices)
    const principal = await authenticator.authenticate(given)
    if (!principal) throw KEY_INVALID()
    assertRole(principal, ['producer'])
    return devices.map((device) => ({ device, generation: undefined }))
  }
  return {
    listeners: (request) => vouch(request, devicesOf(request)),
    listener: async (request, device) => {
      assertNames({ device })
      const [listener] = await vouch(request, [device])
      return listener as Listener
    },
  }
}

function devicesOf(request: FastifyRequest): string[] {
  const { device } = request.query as { device?: string | string[] }
  const devices = [...new Set([device ?? []].flat())]
  if (devices.length === 0 || devices.length > maxDevices) {
    const fault = { path: '/query/device', message: `must be given, at most ${maxDevices} times` }
    throw INPUT_INVALID({ summary: `device ${fault.message}` }, { faults: [fault] })
  }
  for (const each of devices) assertNames({ device: each })
  return devices
}

/** An EventSource or a WebSocket of a browser can set no header, so a device token may stand in the query. A key may not. */
function credentialsOf(request: FastifyRequest): string {
  const header = /^bearer +(\S(?:.*\S)?) *$/i.exec(request.headers.authorization ?? '')?.[1]
  if (header !== undefined) return header.replaceAll(' ', '')
  const { token } = request.query as { token?: string }
  if (typeof token === 'string' && token.startsWith('bd1.')) return token
  throw KEY_MISSING()
}

function byTokens(tokens: DeviceTokens, given: string[], devices: string[]): Listener[] {
  const held = new Map<string, TokenHolder>()
  for (const token of given) {
    const holder = tokens.read(token)
    if (holder) held.set(holder.device, holder)
  }
  return devices.map((device) => {
    const holder = held.get(device)
    if (!holder) throw DEVICE_TOKEN_INVALID({ device })
    return { device, generation: holder.generation }
  })
}

import { createPublicKey } from 'node:crypto'
import type { Fault } from '../../core/errors.ts'
import type { Transport } from './transport.ts'

export interface TransportRules {
  /** Whether http:, private addresses and the kind `stub` are taken. */
  allowPrivate: boolean
}

type Input = Record<string, unknown>
type Parser = (input: Input, path: string, rules: TransportRules) => Transport | Fault[]

const maxTransports = 8

/** Reads the transports of a device's registration, best first. Gives every fault, not only the first. */
export function parseTransports(
  inputs: unknown,
  rules: TransportRules,
): { transports: Transport[]; faults: Fault[] } {
  if (!Array.isArray(inputs)) {
    return { transports: [], faults: [{ path: '/transports', message: 'must be a list' }] }
  }
  if (inputs.length > maxTransports) {
    const message = `has ${inputs.length} entries; at most ${maxTransports} are taken`
    return { transports: [], faults: [{ path: '/transports', message }] }
  }
  const transports: Transport[] = []
  const faults: Fault[] = []
  for (const [index, input] of inputs.entries()) {
    const parsed = parseTransport(input, `/transports/${index}`, rules)
    if (Array.isArray(parsed)) faults.push(...parsed)
    else transports.push(parsed)
  }
  return { transports, faults }
}

function parseTransport(input: unknown, path: string, rules: TransportRules): Transport | Fault[] {
  if (typeof input !== 'object' || input === null) return [{ path, message: 'must be an object' }]
  const { kind } = input as Input
  const known = Object.keys(parsers).filter((each) => rules.allowPrivate || each !== 'stub')
  if (typeof kind !== 'string' || !known.includes(kind)) {
    return [{ path: `${path}/kind`, message: `must be one of ${known.join(', ')}` }]
  }
  return (parsers[kind] as Parser)(input as Input, path, rules)
}

const parsers: Record<string, Parser> = {
  webpush: (input, path, rules) => {
    const keys = (typeof input['keys'] === 'object' && input['keys'] !== null ? input['keys'] : {}) as Input
    const faults = [
      ...urlFaults(input['endpoint'], `${path}/endpoint`, rules),
      ...p256dhFaults(keys['p256dh'], `${path}/keys/p256dh`),
      ...authFaults(keys['auth'], `${path}/keys/auth`),
    ]
    if (faults.length > 0) return faults
    return {
      kind: 'webpush',
      address: input['endpoint'] as string,
      options: { p256dh: keys['p256dh'] as string, auth: keys['auth'] as string },
    }
  },
  apns: (input, path) => {
    const environment = input['environment'] ?? 'production'
    const faults = [
      ...textFaults(input['token'], `${path}/token`, /^[0-9a-f]{2,200}$/i, 'must be hexadecimal digits'),
      ...textFaults(input['topic'], `${path}/topic`, /^[\w.-]{1,200}$/, "must be the app's bundle id"),
    ]
    if (environment !== 'production' && environment !== 'sandbox') {
      faults.push({ path: `${path}/environment`, message: 'must be production or sandbox' })
    }
    if (faults.length > 0) return faults
    return {
      kind: 'apns',
      address: input['token'] as string,
      options: { topic: input['topic'] as string, environment: environment as string },
    }
  },
  fcm: (input, path) => {
    const faults = textFaults(input['token'], `${path}/token`, /^[\x21-\x7e]{1,4096}$/, 'must be a token')
    return faults.length > 0 ? faults : { kind: 'fcm', address: input['token'] as string, options: {} }
  },
  webhook: (input, path, rules) => {
    const faults = urlFaults(input['url'], `${path}/url`, rules)
    const { secret } = input
    if (secret !== undefined) {
      faults.push(
        ...textFaults(secret, `${path}/secret`, /^[\x21-\x7e]{16,200}$/, 'must have 16 to 200 characters'),
      )
    }
    if (faults.length > 0) return faults
    return {
      kind: 'webhook',
      address: input['url'] as string,
      options: secret === undefined ? {} : { secret: secret as string },
    }
  },
  stub: (input, path) => {
    const faults = textFaults(input['name'], `${path}/name`, /^.{1,200}$/, 'must be a name')
    return faults.length > 0 ? faults : { kind: 'stub', address: input['name'] as string, options: {} }
  },
}

function textFaults(value: unknown, path: string, form: RegExp, message: string): Fault[] {
  return typeof value === 'string' && form.test(value) ? [] : [{ path, message }]
}

function urlFaults(value: unknown, path: string, rules: TransportRules): Fault[] {
  const url = typeof value === 'string' && value.length <= 2_048 ? URL.parse(value) : null
  if (!url) return [{ path, message: 'must be a URL of at most 2048 characters' }]
  if (url.protocol !== 'https:' && !(rules.allowPrivate && url.protocol === 'http:')) {
    return [{ path, message: 'must begin with https://' }]
  }
  return url.username || url.password ? [{ path, message: 'must not contain a login' }] : []
}

/** The DER head of a P-256 public key in SubjectPublicKeyInfo; the 65 bytes of the point follow. */
const spkiHead = Buffer.from('3059301306072a8648ce3d020106082a8648ce3d030107034200', 'hex')

function p256dhFaults(value: unknown, path: string): Fault[] {
  const message = 'must be an uncompressed P-256 public key (65 bytes) in base64url'
  const point = typeof value === 'string' ? Buffer.from(value, 'base64url') : Buffer.alloc(0)
  if (point.length !== 65 || point[0] !== 4) return [{ path, message }]
  try {
    createPublicKey({ key: Buffer.concat([spkiHead, point]), format: 'der', type: 'spki' })
    return []
  } catch {
    // Not a point of the curve: every message to it would fail, and with it the batch that it is in.
    return [{ path, message }]
  }
}

function authFaults(value: unknown, path: string): Fault[] {
  const ok = typeof value === 'string' && Buffer.from(value, 'base64url').length === 16
  return ok ? [] : [{ path, message: 'must be 16 bytes in base64url' }]
}

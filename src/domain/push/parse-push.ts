import type { Fault } from '../../core/errors.ts'
import { INPUT_INVALID } from '../../platform/queues/errors.ts'
import { PUSH_TOO_LARGE } from './errors.ts'
import { nameFault } from './names.ts'
import { defaultTtlMs, maxConfirmMs, maxPayloadBytes, maxTtlMs, type NewPush, type Target } from './push.ts'

export interface PushDefaults {
  newId(): string
  /** CONFIRM_MS; undefined is adaptive. */
  confirmMs: number | undefined
}

/** Most pushes of one request. */
export const mostInBatch = 1_000
const known = new Set(['to', 'payload', 'priority', 'topic', 'ttlMs', 'confirmMs', 'escalateMs'])
const targets = ['device', 'user', 'group'] as const

/**
 * Reads one push or a list of them.
 * @throws INPUT_INVALID with every fault, PUSH_TOO_LARGE
 */
export function parsePushes(input: unknown, defaults: PushDefaults): NewPush[] {
  const list = Array.isArray(input) ? (input as unknown[]) : [input]
  if (list.length === 0 || list.length > mostInBatch) {
    throw invalid([{ path: '', message: `must hold 1 to ${mostInBatch} pushes` }])
  }
  const faults: Fault[] = []
  const pushes = list.map((each, index) => {
    const path = Array.isArray(input) ? `/${index}` : ''
    if (typeof each !== 'object' || each === null || Array.isArray(each)) {
      faults.push({ path, message: 'must be an object' })
      return undefined
    }
    return parsePush(each as Record<string, unknown>, path, { defaults, faults })
  })
  if (faults.length > 0) throw invalid(faults)
  return pushes as NewPush[]
}

const invalid = (faults: Fault[]): Error =>
  INPUT_INVALID(
    {
      summary: faults
        .map(({ path, message }) => `${path || 'it'} ${message}`)
        .slice(0, 5)
        .join('; '),
    },
    { faults: faults.slice(0, 100) },
  )

function parsePush(
  input: Record<string, unknown>,
  path: string,
  { defaults, faults }: { defaults: PushDefaults; faults: Fault[] },
): NewPush {
  const integer = (name: string, min: number, max: number): number | undefined => {
    const value = input[name]
    if (value === undefined) return undefined
    if (Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max)
      return value as number
    faults.push({ path: `${path}/${name}`, message: `must be a whole number from ${min} to ${max}` })
    return undefined
  }
  for (const name of Object.keys(input)) {
    if (!known.has(name)) faults.push({ path: `${path}/${name}`, message: 'is not known here' })
  }
  const { priority = 'priority', topic } = input
  if (priority !== 'priority' && priority !== 'normal') {
    faults.push({ path: `${path}/priority`, message: 'must be priority or normal' })
  }
  if (topic !== undefined) faults.push(...textFaults(topic, `${path}/topic`))
  const confirmMs = integer('confirmMs', 0, maxConfirmMs) ?? defaults.confirmMs
  const escalateMs = integer('escalateMs', 1_000, maxConfirmMs)
  const payload = payloadOf(input['payload'])
  return {
    id: defaults.newId(),
    to: parseTarget(input['to'], `${path}/to`, faults),
    priority: priority === 'priority',
    ttlMs: integer('ttlMs', 1, maxTtlMs) ?? defaultTtlMs,
    ...(typeof topic === 'string' ? { topic } : {}),
    ...(payload === undefined ? {} : { payload }),
    ...(confirmMs === undefined ? {} : { confirmMs }),
    ...(escalateMs === undefined ? {} : { escalateMs }),
  }
}

/** @throws PUSH_TOO_LARGE */
function payloadOf(value: unknown): string | undefined {
  if (value === undefined) return undefined
  const text = JSON.stringify(value)
  const size = Buffer.byteLength(text)
  if (size > maxPayloadBytes) throw PUSH_TOO_LARGE({ size, limit: maxPayloadBytes })
  return text
}

function parseTarget(input: unknown, path: string, faults: Fault[]): Target {
  const given = typeof input === 'object' && input !== null ? (input as Record<string, unknown>) : {}
  const [kind, ...more] = Object.keys(given)
  const found = targets.find((each) => each === kind)
  if (!found || more.length > 0) {
    faults.push({ path, message: 'must be {device}, {user} or {group}' })
    return { device: '' }
  }
  faults.push(...textFaults(given[found], `${path}/${found}`))
  return { [found]: given[found] } as Target
}

function textFaults(value: unknown, path: string): Fault[] {
  if (typeof value !== 'string') return [{ path, message: 'must be a text' }]
  const fault = nameFault(path, value)
  return fault ? [fault] : []
}

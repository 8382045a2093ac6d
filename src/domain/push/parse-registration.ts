import type { Fault } from '../../core/errors.ts'
import { INPUT_INVALID } from '../../platform/queues/errors.ts'
import type { Registration } from './devices.ts'
import { nameFault } from './names.ts'
import { parseTransports, type TransportRules } from './parse-transports.ts'

const known = new Set(['user', 'groups', 'transports'])
const maxGroups = 100

/**
 * Reads what a device is registered with.
 * @throws INPUT_INVALID with every fault
 */
export function parseRegistration(device: string, input: unknown, rules: TransportRules): Registration {
  assertNames({ device })
  if (typeof input !== 'object' || input === null || Array.isArray(input)) {
    throw invalid([{ path: '', message: 'must be an object' }])
  }
  const given = input as Record<string, unknown>
  const faults: Fault[] = []
  const registration: Registration = {}
  for (const name of Object.keys(given)) {
    if (!known.has(name)) faults.push({ path: `/${name}`, message: 'is not known here' })
  }
  const { user, groups, transports } = given
  if (user === null) registration.user = null
  else if (user !== undefined) {
    faults.push(...textFaults(user, '/user'))
    registration.user = user as string
  }
  if (groups !== undefined) {
    faults.push(...groupsFaults(groups))
    registration.groups = groups as string[]
  }
  if (transports !== undefined) {
    const parsed = parseTransports(transports, rules)
    faults.push(...parsed.faults)
    registration.transports = parsed.transports
  }
  if (faults.length > 0) throw invalid(faults)
  return registration
}

/** @throws INPUT_INVALID when a name from a path or a query cannot be one */
export function assertNames(names: Record<string, string>): void {
  const faults = Object.entries(names).flatMap(([name, value]) => nameFault(`/${name}`, value) ?? [])
  if (faults.length > 0) throw invalid(faults)
}

const invalid = (faults: Fault[]): Error =>
  INPUT_INVALID(
    {
      summary: faults
        .map(({ path, message }) => `${path || 'it'} ${message}`)
        .slice(0, 5)
        .join('; '),
    },
    { faults },
  )

function groupsFaults(groups: unknown): Fault[] {
  if (!Array.isArray(groups) || groups.length > maxGroups) {
    return [{ path: '/groups', message: `must be a list of at most ${maxGroups}` }]
  }
  return groups.flatMap((group, index) => textFaults(group, `/groups/${index}`))
}

function textFaults(value: unknown, path: string): Fault[] {
  if (typeof value !== 'string') return [{ path, message: 'must be a text' }]
  const fault = nameFault(path, value)
  return fault ? [fault] : []
}

import type { TSchema } from 'typebox'
import { Compile, type Validator } from 'typebox/compile'
import { Settings } from 'typebox/system'
import type { Fault } from '../../core/errors.ts'

/** Tells what of a value does not fit its schema: nothing when it fits. Compiled once, a check takes microseconds. */
export type Check = (value: unknown) => Fault[]

/** More would help nobody, and an answer must have an end. */
const maxFaults = 1_000
const none: Fault[] = []

export function createCheck(schema: TSchema): Check {
  const validator = Compile(schema)
  return (value) => (validator.Check(value) ? none : explain(validator, value))
}

/** The faults in one line, for a message. Says no value: a payload must not get into a log. */
export function summaryOf(faults: Fault[]): string {
  const shown = faults.slice(0, 3).map((fault) => `${fault.path || '/'} ${fault.message}`)
  return faults.length > shown.length
    ? `${shown.join('; ')}; and ${faults.length - shown.length} more`
    : shown.join('; ')
}

type Finding = ReturnType<Validator['Errors']>[number]

function explain(validator: Validator, value: unknown): Fault[] {
  const findings = findAll(validator, value)
  const unions = findings.filter(({ keyword }) => keyword === 'anyOf').map(({ instancePath }) => instancePath)
  return findings
    .filter((finding) => !isImplied(finding, unions))
    .flatMap(faultsOf)
    .filter(isFirstOfItsKind)
}

/** TypeBox stops at 8 faults unless its one global setting says otherwise: set only while we ask. */
function findAll(validator: Validator, value: unknown): Finding[] {
  const { maxErrors } = Settings.Get()
  Settings.Set({ maxErrors: maxFaults })
  try {
    return validator.Errors(value)
  } finally {
    Settings.Set({ maxErrors })
  }
}

/** What another finding says already: the `false` below additionalProperties, each refused branch of a union. */
function isImplied({ keyword, instancePath, schemaPath }: Finding, unions: string[]): boolean {
  if (keyword === 'boolean') return true
  return (
    schemaPath.includes('/anyOf/') &&
    unions.some((path) => instancePath === path || instancePath.startsWith(`${path}/`)) &&
    keyword !== 'anyOf'
  )
}

const below = (path: string, key: string): string =>
  `${path}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`

type Params<Keyword> = Extract<Finding, { keyword: Keyword }>['params']

/** Our words where TypeBox's are for programmers. */
const phrases: { [Keyword in Finding['keyword']]?: (params: Params<Keyword>) => string } = {
  type: ({ type }) => `must be ${[type].flat().map(withArticle).join(' or ')}`,
  const: ({ allowedValue }) => `must be ${JSON.stringify(allowedValue)}`,
  enum: ({ allowedValues }) => `must be one of ${allowedValues.map(toText).join(', ')}`,
  minLength: ({ limit }) => `must have at least ${limit} characters`,
  maxLength: ({ limit }) => `must have at most ${limit} characters`,
  anyOf: () => 'fits none of the forms that are allowed here',
}

function faultsOf(finding: Finding): Fault[] {
  const { keyword, instancePath: path, params, message } = finding
  const each = (keys: string[], text: string): Fault[] =>
    keys.map((key) => ({ path: below(path, key), message: text }))
  if (keyword === 'required') return each(params.requiredProperties, 'is missing')
  if (keyword === 'additionalProperties') return each(params.additionalProperties, 'is not known')
  return [{ path, message: phrases[keyword]?.(params as never) ?? message }]
}

const toText = (value: unknown): string => JSON.stringify(value)

const withArticle = (type: string): string =>
  type === 'null' ? type : `${/^[aeiou]/.test(type) ? 'an' : 'a'} ${type}`

const isFirstOfItsKind = (fault: Fault, index: number, all: Fault[]): boolean =>
  all.findIndex((each) => each.path === fault.path && each.message === fault.message) === index

/** Whether whoever met the error may try again: never, after a pause, or after the time that came with it. */
export type Retry = 'never' | 'backoff' | 'after'

/** What each error code means to HTTP, to clients, to metrics and to whoever is paged. */
export interface ErrorTraits {
  /** HTTP status of the answer. */
  status: number
  retry: Retry
  /** Whether a person has to look: logged as an error and counted for paging. */
  report: boolean
}

export interface ErrorDetails {
  cause?: unknown
  /** Faults of an input, each by its JSON path. */
  faults?: Fault[]
  /** When to try again, in ms from now. Sent as Retry-After. */
  retryAfterMs?: number
}

export interface Fault {
  path: string
  message: string
}

export class BatonError extends Error {
  readonly code: string
  readonly traits: ErrorTraits
  readonly faults: Fault[] | undefined
  readonly retryAfterMs: number | undefined

  constructor(code: string, message: string, traits: ErrorTraits, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause })
    this.name = code
    this.code = code
    this.traits = traits
    this.faults = details.faults
    this.retryAfterMs = details.retryAfterMs
  }
}

/** A kind of error: call it to make one, read its code and traits for documents and tests. */
export interface ErrorKind {
  (values?: Record<string, string | number>, details?: ErrorDetails): BatonError
  readonly code: string
  readonly template: string
  readonly traits: ErrorTraits
  is(error: unknown): error is BatonError
}

/**
 * Declares an error kind. `{name}` in the template is replaced by the value of that name.
 * Every kind has a row in docs/errors.md; a test compares the two in both directions.
 */
export function defineError(code: string, template: string, traits: ErrorTraits): ErrorKind {
  const make = (values: Record<string, string | number> = {}, details: ErrorDetails = {}): BatonError =>
    new BatonError(code, fill(template, values), traits, details)
  const is = (error: unknown): error is BatonError => error instanceof BatonError && error.code === code
  return Object.assign(make, { code, template, traits, is })
}

const fill = (template: string, values: Record<string, string | number>): string =>
  template.replace(/\{(\w+)\}/g, (_whole, name: string) => String(values[name] ?? `{${name}}`))

/** The text of anything that was thrown, also of what cannot become a text: who tells of an error must not throw. */
export function messageOf(error: unknown): string {
  try {
    if (error instanceof AggregateError && error.message === '') return error.errors.map(messageOf).join('; ')
    return String(error instanceof Error ? error.message : error)
  } catch {
    return 'something was thrown that cannot be shown'
  }
}

/** The code of a BatonError or of a Node or Postgres error, if it has one. */
export function codeOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}

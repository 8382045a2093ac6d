/** One environment variable: how it is read, what it is without being set, and what the documents say of it. */
export interface Setting<T> {
  name: string
  /** As it stands in docs/configuration.md. */
  default: string
  unit: string
  about: string
  /** Missing in production ends the start with exit code 78. */
  requiredInProduction?: boolean
  /** Turns the text into a value, or throws an Error that says what would be right. */
  read(text: string): T
  /** The value when the variable is unset or empty. */
  fallback: T
}

type About = Omit<Setting<unknown>, 'read' | 'fallback' | 'name'>

export const text = <F extends string | undefined>(
  name: string,
  fallback: F,
  about: About,
): Setting<string | F> => ({ ...about, name, fallback, read: (value) => value })

export const url = (name: string, protocols: string[], about: About): Setting<string | undefined> => ({
  ...about,
  name,
  fallback: undefined,
  read: (value) => {
    const protocol = /^([a-z0-9+]+):\/\//i.exec(value)?.[1]?.toLowerCase()
    if (!protocol || !protocols.includes(protocol)) {
      throw new Error(`must be a URL that begins with ${protocols.map((each) => `${each}://`).join(' or ')}`)
    }
    return value
  },
})

interface Range {
  min: number
  max: number
}

export const integer = <F extends number | undefined>(
  name: string,
  fallback: F,
  range: Range,
  about: About,
): Setting<number | F> => ({
  ...about,
  name,
  fallback,
  read: (value) => {
    const number = Number(value)
    if (!/^-?\d+$/.test(value.trim()) || number < range.min || number > range.max) {
      throw new Error(`must be a whole number from ${range.min} to ${range.max}`)
    }
    return number
  },
})

export const choice = <const Options extends readonly string[]>(
  name: string,
  options: Options,
  fallback: Options[number],
  about: About,
): Setting<Options[number]> => ({
  ...about,
  name,
  fallback,
  read: (value) => {
    if (!options.includes(value)) throw new Error(`must be one of ${options.join(', ')}`)
    return value
  },
})

export const flag = (name: string, about: About): Setting<boolean> => ({
  ...about,
  name,
  fallback: false,
  read: (value) => {
    if (/^(1|true|yes|on)$/i.test(value)) return true
    if (/^(0|false|no|off)$/i.test(value)) return false
    throw new Error('must be 1 or 0')
  },
})

export const list = (name: string, about: About): Setting<string[]> => ({
  ...about,
  name,
  fallback: [],
  read: (value) =>
    value
      .split(',')
      .map((part) => part.trim())
      .filter((part) => part !== ''),
})

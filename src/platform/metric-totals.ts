/**
 * Counters and histograms as numbers that can be sent and added: by metric, then by the values of its labels, in
 * their order, joined by line ends. A counter is one number. A histogram is the sum of what was observed, then how
 * much fell into each bucket (not cumulative), then what was above all; zeros at the end are left out.
 */
export type Totals = Record<string, Record<string, number[]>>

/** Adds `more` to `into`. */
export function addTotals(into: Totals, more: Totals): void {
  for (const [name, series] of Object.entries(more)) {
    const own = (into[name] ??= {})
    for (const [key, numbers] of Object.entries(series)) {
      const sums = (own[key] ??= [])
      numbers.forEach((number, index) => {
        sums[index] = (sums[index] ?? 0) + number
      })
    }
  }
}

export const keyOf = (labels: readonly string[]): string =>
  labels.map((label) => label.replaceAll('\n', ' ')).join('\n')

/** @param count how many labels there are: a metric without labels has one series, whose key is empty */
export const labelsOf = (key: string, count: number): string[] => (count === 0 ? [] : key.split('\n'))

/** Gathers increments between two calls of `take`. */
export interface Tally {
  count(name: string, labels: readonly string[], by: number): void
  observe(name: string, labels: readonly string[], observation: Observation): void
  /** What came since the last call. */
  take(): Totals
}

export interface Observation {
  value: number
  /** Upper bounds of the buckets. */
  bounds: readonly number[]
}

export function createTally(): Tally {
  let totals: Totals = {}
  const seriesOf = (name: string, labels: readonly string[]): number[] => {
    const series = (totals[name] ??= {})
    return (series[keyOf(labels)] ??= [0])
  }
  return {
    count: (name, labels, by) => {
      const numbers = seriesOf(name, labels)
      numbers[0] = (numbers[0] ?? 0) + by
    },
    observe: (name, labels, { value, bounds }) => {
      const numbers = seriesOf(name, labels)
      const found = bounds.findIndex((bound) => value <= bound)
      const place = 1 + (found < 0 ? bounds.length : found)
      while (numbers.length <= place) numbers.push(0)
      numbers[0] = (numbers[0] ?? 0) + value
      numbers[place] = (numbers[place] ?? 0) + 1
    },
    take: () => {
      const taken = totals
      totals = {}
      return taken
    },
  }
}

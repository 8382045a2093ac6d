/** One line of a bench: ours beside a peer, measured in the same run, since machines differ more than programs. */
export interface Measure {
  what: string
  ours: number
  /** What a user would pick instead. Absent where there is no peer. */
  peer?: number
  unit: string
  /** For a rate, ours / peer; for a duration or a size, peer / ours: above 1 is always better for ours. */
  ratio?: number
  /** The ratio (or without a peer the value) that is aimed at. */
  aim?: number
  note?: string
}

export interface BenchResult {
  name: string
  measures: Measure[]
}

export const median = (values: number[]): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = Math.floor(sorted.length / 2)
  return sorted.length % 2 ? (sorted[middle] ?? 0) : ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2
}

export const rate = (what: string, ours: number, peer: number, rest: Partial<Measure> = {}): Measure => ({
  what,
  ours,
  peer,
  unit: '1/s',
  ratio: ours / peer,
  ...rest,
})

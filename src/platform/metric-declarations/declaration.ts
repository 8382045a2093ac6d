/** One metric. */
export interface Declaration {
  name: string
  type: 'counter' | 'gauge' | 'histogram'
  /** As it stands in docs/metrics.md. */
  help: string
  labels: readonly string[]
  /** Upper bounds of a histogram's buckets. */
  buckets?: readonly number[]
}

/** Buckets of what somebody waits for. */
export const answerSeconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

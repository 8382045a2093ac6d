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

export interface BackoffOptions {
  /** Delay before the first retry, ms. */
  baseMs: number
  /** Longest delay, ms. */
  maxMs: number
  /** Growth from one retry to the next; 2 unless said. */
  factor?: number
}

/**
 * How long to wait before retry number `retry` (1 is the first), ms. Between half and the whole of the
 * exponential delay: without the jitter all jobs that failed together would fail together again.
 */
export function backoffMs(
  retry: number,
  options: BackoffOptions,
  random: () => number = Math.random,
): number {
  const exponential = options.baseMs * (options.factor ?? 2) ** Math.max(0, retry - 1)
  // Of no delay at all, growth beyond all bounds makes no number.
  const ceiling = Math.min(options.maxMs, exponential) || 0
  return Math.round(ceiling / 2 + (random() * ceiling) / 2)
}

import type { Metrics } from '../metrics.ts'

/** How a run ended. */
export type RunOutcome = 'completed' | 'failed' | 'retried' | 'snoozed' | 'cancelled' | 'interrupted' | 'lost'

/** What runs of jobs count. Called for each of them, so it must be cheap and must not throw. */
export interface JobMetrics {
  started(job: string): void
  finished(job: string, outcome: RunOutcome, durationMs: number): void
  interrupted(job: string, reason: string): void
  leftBehind(job: string): void
}

export function createJobMetrics(metrics: Metrics): JobMetrics {
  return {
    started: (job) => metrics.count('baton_jobs_started_total', { job }),
    finished: (job, outcome, durationMs) => {
      metrics.count('baton_jobs_finished_total', { job, outcome })
      metrics.observe('baton_job_duration_seconds', { job }, durationMs / 1_000)
    },
    interrupted: (job, reason) => metrics.count('baton_jobs_interrupted_total', { job, reason }),
    leftBehind: (job) => metrics.count('baton_jobs_left_behind_total', { job }),
  }
}

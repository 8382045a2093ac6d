import { expect, test } from 'vitest'
import { createMetrics } from '../../../src/platform/metrics.ts'
import { createNodeMeter, encodeNodeMetrics } from '../../../src/platform/processes/node-metrics.ts'

test('a meter sums what its children told and what the master counted, and never goes back', () => {
  const master = createMetrics()
  const meter = createNodeMeter(master)
  meter.add({ baton_jobs_started_total: { mail: [2] } })
  master.count('baton_worker_deaths_total', { loss: 'crash' })
  meter.add({ baton_jobs_started_total: { mail: [3], other: [1] } })
  const expected = {
    baton_jobs_started_total: { mail: [5], other: [1] },
    baton_worker_deaths_total: { crash: [1] },
  }
  expect(meter.totals()).toEqual(expected)
  expect(meter.totals()).toEqual(expected)
})

test('the row stays small: fifty jobs take a few kilobytes, and a thousand go without their histograms', () => {
  const meterOf = (jobs: number) => {
    const metrics = createMetrics()
    for (let job = 0; job < jobs; job++) {
      const name = `a-job-with-a-usual-name-${job}`
      metrics.count('baton_jobs_started_total', { job: name }, 12_345)
      for (const outcome of ['completed', 'failed', 'retried'])
        metrics.count('baton_jobs_finished_total', { job: name, outcome }, 12_345)
      for (const seconds of [0.004, 0.02, 0.3, 4])
        metrics.observe('baton_job_duration_seconds', { job: name }, seconds)
    }
    return createNodeMeter(metrics).totals()
  }
  const usual = encodeNodeMetrics({ totals: meterOf(50), crashLoops: 0 })
  console.log(`metrics of 50 jobs in a row of nodes: ${usual.length} characters`)
  expect(usual.length).toBeLessThan(16_000)
  expect(usual).toContain('baton_job_duration_seconds')
  const large = encodeNodeMetrics({ totals: meterOf(1_000), crashLoops: 0 })
  expect(large).not.toContain('baton_job_duration_seconds')
  expect(large).toContain('baton_jobs_finished_total')
})

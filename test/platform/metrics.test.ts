import { readFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { declarations } from '../../src/platform/metric-declarations.ts'
import { createMetricLines } from '../../src/platform/metric-lines.ts'
import { addTotals, type Totals } from '../../src/platform/metric-totals.ts'
import { createMetrics } from '../../src/platform/metrics.ts'

describe('docs/metrics.md', () => {
  it('lists every metric with its type, labels and meaning, and no other', async () => {
    const text = await readFile(new URL('../../docs/metrics.md', import.meta.url), 'utf8')
    const documented = text
      .split('\n')
      .filter((line) => line.startsWith('| `'))
      .map((line) => line.replaceAll('`', '').replaceAll(/ *\| */g, '|'))
    const declared = declarations.map(
      ({ name, type, labels, help }) => `|${name}|${type}|${labels.join(', ') || '–'}|${help}|`,
    )
    expect(documented.sort()).toEqual(declared.sort())
  })
})

describe('metrics', () => {
  it('are told in the text format of Prometheus, with those of the process', async () => {
    const metrics = createMetrics()
    metrics.count('baton_jobs_finished_total', { job: 'a"b', outcome: 'failed' }, 2)
    metrics.observe('baton_job_duration_seconds', { job: 'a' }, 0.02)
    metrics.set('baton_jobs_active', { node: 'n' }, 3)
    const text = await metrics.text()
    expect(text).toContain('baton_jobs_finished_total{job="a\\"b",outcome="failed"} 2')
    expect(text).toContain('baton_job_duration_seconds_bucket{le="0.025",job="a"} 1')
    expect(text).toContain('baton_jobs_active{node="n"} 3')
    expect(text).toContain('process_cpu_user_seconds_total')
    expect(metrics.contentType).toContain('text/plain')
  })

  it('are taken as increments, which add up to what was counted, whoever died in between', async () => {
    const [one, other] = [createMetrics(), createMetrics()]
    const sum: Totals = {}
    const expected = { counted: 0, observed: [0, 0] }
    for (let round = 1; round <= 3; round++) {
      for (const metrics of [one, other]) {
        metrics.count('baton_jobs_finished_total', { job: 'a"b\\', outcome: 'failed' }, round)
        metrics.observe('baton_job_duration_seconds', { job: 'a' }, 0.02 * round)
        metrics.observe('baton_job_duration_seconds', { job: 'a' }, 9_999)
        addTotals(sum, metrics.take())
        expected.counted += round
      }
    }
    addTotals(sum, one.take())
    const lines = createMetricLines()
    lines.totals(sum, 'n')
    expect(lines.of('baton_jobs_finished_total')).toEqual([
      `baton_jobs_finished_total{job="a\\"b\\\\",outcome="failed",node="n"} ${expected.counted}`,
    ])
    const histogram = lines.of('baton_job_duration_seconds').join('\n')
    for (const [bound, count] of Object.entries({
      '0.005': 0,
      '0.025': 2,
      '0.1': 6,
      '3600': 6,
      '+Inf': 12,
    })) {
      expect(histogram).toContain(
        `baton_job_duration_seconds_bucket{job="a",node="n",le="${bound}"} ${count}`,
      )
    }
    expect(histogram).toContain('baton_job_duration_seconds_count{job="a",node="n"} 12')
    expect(histogram).toMatch(/_sum\{job="a",node="n"\} 59994\.24/)
  })

  it('of other processes stand under the heading of the same metric', async () => {
    const metrics = createMetrics()
    metrics.count('baton_body_bytes_total', { direction: 'in' }, 7)
    const lines = createMetricLines()
    lines.totals({ baton_body_bytes_total: { out: [5] } }, 'n')
    lines.gauge('baton_jobs_active', { node: 'n' }, 2)
    const text = await metrics.text(lines)
    const heading = '# TYPE baton_body_bytes_total counter\n'
    expect(text).toContain(
      `${heading}baton_body_bytes_total{direction="in"} 7\nbaton_body_bytes_total{direction="out",node="n"} 5\n`,
    )
    expect(text.split('# TYPE baton_jobs_active').length).toBe(2)
    expect(text).toContain('\nbaton_jobs_active{node="n"} 2\n')
  })

  it('that another release wrote and this one does not know are left out', () => {
    const lines = createMetricLines()
    const tooMany = Array.from({ length: 40 }, () => 1)
    lines.totals(
      {
        baton_of_tomorrow_total: { a: [1] },
        baton_job_duration_seconds: { a: tooMany },
        baton_jobs_finished_total: { a: [1] },
        baton_jobs_active: { a: [1] },
      },
      'n',
    )
    for (const name of [
      'baton_of_tomorrow_total',
      'baton_job_duration_seconds',
      'baton_jobs_finished_total',
    ]) {
      expect(lines.of(name)).toEqual([])
    }
    expect(lines.of('baton_jobs_active')).toEqual([])
  })

  it('of two processes in one share nothing', async () => {
    const [one, other] = [createMetrics(), createMetrics()]
    one.count('baton_jobs_started_total', { job: 'a' })
    expect(await other.text()).not.toContain('baton_jobs_started_total{')
  })

  it('have names and labels by the rules of Prometheus', () => {
    for (const { name, type, labels } of declarations) {
      expect(name).toMatch(/^baton_[a-z_]+$/)
      expect(name.endsWith('_total')).toBe(type === 'counter')
      for (const label of labels) expect(label).toMatch(/^[a-z_]+$/)
    }
  })
})

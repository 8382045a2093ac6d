import { readFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { createMetrics, declarations } from '../../src/platform/metrics.ts'

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
    metrics.set('baton_jobs_active', {}, 3)
    const text = await metrics.text()
    expect(text).toContain('baton_jobs_finished_total{job="a\\"b",outcome="failed"} 2')
    expect(text).toContain('baton_job_duration_seconds_bucket{le="0.025",job="a"} 1')
    expect(text).toContain('baton_jobs_active 3')
    expect(text).toContain('process_cpu_user_seconds_total')
    expect(metrics.contentType).toContain('text/plain')
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

import { expect, test } from 'vitest'
import { startHarness, viewer } from '../runtime/web/web-harness.ts'
import { eventually } from '../support/processes.ts'
import { childOf, openSite, untilUp } from '../support/workers.ts'

test('what workers count is shown by the web tier, over the death of a child and of the node', async () => {
  const site = await openSite({ engine: 'redis' })
  const worker = await site.startWorker({ WORKER_PROCESSES: '2' })
  const api = await startHarness({ databaseUrl: site.databaseUrl })
  /** Values of the samples that match, as the web tier shows them now. */
  const scrape = async (pattern: RegExp): Promise<number[]> => {
    const text = await (await api.request('/metrics', { key: viewer })).text()
    return text
      .split('\n')
      .filter((line) => pattern.test(line))
      .map((line) => Number(line.split(' ').at(-1)))
  }
  const shows = (pattern: RegExp, values: number[]) =>
    eventually(async () => expect(await scrape(pattern)).toEqual(values), { timeoutMs: 30_000, everyMs: 100 })
  const completed = /^baton_jobs_finished_total\{job="sleep",outcome="completed",node="/
  try {
    for (let job = 0; job < 3; job++) await site.jobIs(await site.enqueue('sleep', { ms: 1 }), 'completed')
    await shows(completed, [3])
    await shows(/^baton_job_duration_seconds_count\{job="sleep",node="/, [3])
    await shows(/^baton_worker_children\{node="[^"]+",state="up"\}/, [2])
    await shows(/^baton_nodes\{kind="worker",state="up"\}/, [1])
    expect(await scrape(/^baton_worker_event_loop_delay_seconds\{node="[^"]+",slot="[12]"\}/)).toHaveLength(2)
    expect(await scrape(/^baton_worker_crash_loops\{/)).toEqual([0])

    const long = await site.enqueue('sleep', { ms: 600_000 })
    await site.jobIs(long, 'active')
    await shows(/^baton_jobs_active\{/, [1])
    process.kill((await childOf(site, long)).pid, 'SIGKILL')
    await untilUp(site, 2)
    await site.jobIs(await site.enqueue('sleep', { ms: 1 }), 'completed')
    await shows(completed, [4])
    await shows(/^baton_worker_deaths_total\{loss="crash",node="/, [1])

    await worker.kill()
    await shows(/^baton_queue_jobs\{queue="default",state="active"\}/, [1])
    await shows(/^baton_nodes\{kind="worker",state="dead"\}/, [1])
    expect(await scrape(completed)).toEqual([4])
    expect(await scrape(/^baton_worker_children\{/)).toEqual([])
  } finally {
    await api.close()
  }
})

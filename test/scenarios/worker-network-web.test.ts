import path from 'node:path'
import { expect, test } from 'vitest'
import { eventually, freePort, projectRoot, spawnBaton } from '../support/processes.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { openSite } from '../support/workers.ts'

const key = 'network-key-0123456789'

/** Until jobs are accepted again, ms: a request waits 5 s for Postgres, and the connections beside it go with it. */
const boundMs = 12_000

test('the web tier accepts jobs again soon after its connections to a store died without a word, and loses none', async () => {
  await Promise.all((['Redis', 'Postgres'] as const).map(acceptAfterCut))
})

async function acceptAfterCut(cut: 'Redis' | 'Postgres'): Promise<void> {
  const site = await openSite({ engine: 'redis' })
  const url = cut === 'Redis' ? (site.redis?.url ?? '') : site.databaseUrl
  const proxy = await startTcpProxy(Number(new URL(url).port))
  const port = String(await freePort())
  const web = spawnBaton(['web'], {
    DATABASE_URL: site.databaseUrl,
    REDIS_URL: site.redis?.url ?? '',
    [cut === 'Redis' ? 'REDIS_URL' : 'DATABASE_URL']: proxy.through(url),
    JOBS_MODULE: path.join(projectRoot, 'test/fixtures/jobs/index.ts'),
    BATON_API_KEYS: `operator:${key}`,
    HOST: '127.0.0.1',
    PORT: port,
  })
  const accept = async (): Promise<string> => {
    const response = await fetch(`http://127.0.0.1:${port}/v1/jobs`, {
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      body: JSON.stringify([{ name: 'sleep', payload: { ms: 1 } }]),
    })
    if (response.status !== 202) throw new Error(`${response.status}: ${await response.text()}`)
    const [job] = ((await response.json()) as { jobs: { id: string }[] }).jobs
    return job?.id ?? ''
  }
  await site.startWorker()
  await site.jobIs(await eventually(accept, { timeoutMs: 30_000 }), 'completed')
  proxy.forget()
  const began = performance.now()
  const ids = [await eventually(accept, { timeoutMs: boundMs })]
  const tookMs = Math.round(performance.now() - began)
  for (let more = 0; more < 5; more++) ids.push(await accept())
  for (const id of ids) await site.jobIs(id, 'completed', 20_000)
  const allMs = Math.round(performance.now() - began)
  console.log(`${cut}: accepted again after ${tookMs} ms, all done after ${allMs} ms`)
  web.signal('SIGTERM')
  expect((await web.exit).code).toBe(0)
}

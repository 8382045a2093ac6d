import { childPids, countRows, type Enqueued, finished, type Scene, type Stage, until } from '../stage.ts'

const total = 1_500
const kills = 3

/** Children of the worker are killed by SIGKILL while they run jobs. */
export const killedChild: Scene = {
  title: 'Workers killed by SIGKILL in the middle of their jobs',
  async play(stage) {
    const ids = await enqueueTallies(stage)
    for (let kill = 1; kill <= kills; kill++) {
      const [pid] = await until('children of the worker', 15_000, async () => {
        const pids = await childPids(stage)
        return pids.length > 0 ? pids : undefined
      })
      if (pid === undefined) break
      stage.say(`kill -9 ${pid}`)
      process.kill(pid, 'SIGKILL')
      await until('the child to be replaced', 15_000, async () => {
        const pids = await childPids(stage)
        return pids.length > 0 && !pids.includes(pid)
      })
    }
    const sql = `SELECT count(*)::int AS count FROM jobs WHERE id = ANY($1::uuid[]) AND outcome = 'completed'`
    await until('all jobs', 60_000, async () => (await countRows(stage, sql, [ids])) === total)
    const effects = await countRows(
      stage,
      `SELECT count(*)::int AS count FROM demo_effects WHERE scene = 'killed-child'`,
    )
    stage.promise(`all ${total} accepted jobs ran, through ${kills} kills`, true)
    stage.promise(`their effects happened exactly once: ${effects} rows`, effects === total)
    await measureRerun(stage)
  },
}

async function enqueueTallies(stage: Stage): Promise<string[]> {
  const ids: string[] = []
  for (let from = 0; from < total; from += 500) {
    const batch = Array.from({ length: 500 }, (_, index) => ({
      name: 'tally',
      payload: { scene: 'killed-child', n: from + index, forMs: 10 },
    }))
    const { jobs } = await stage.client.call<{ jobs: Enqueued[] }>('POST', '/v1/jobs', batch)
    ids.push(...jobs.map((job) => job.id))
  }
  return ids
}

/** How long a job whose process was killed waits until it runs again. */
async function measureRerun(stage: Stage): Promise<void> {
  const { id } = await stage.client.call<Enqueued>('POST', '/v1/jobs', {
    name: 'tally',
    payload: { scene: 'rerun', n: 1, forMs: 800 },
  })
  const run = (after: string | undefined) => async () => {
    const { rows } = await stage.postgres.query<{ token: string; pid: number }>(
      `SELECT run_token::text AS token,
              (SELECT (child->>'pid')::int FROM nodes, json_array_elements(children) child
               WHERE child->>'runner' = jobs.runner LIMIT 1) AS pid
       FROM jobs WHERE id = $1 AND run_token IS NOT NULL`,
      [id],
    )
    const [row] = rows
    return row?.pid && row.token !== after ? row : undefined
  }
  const first = await until('the job to start', 15_000, run(undefined))
  const killedAt = performance.now()
  process.kill(first.pid, 'SIGKILL')
  await until('the job to run again', 15_000, run(first.token))
  const ms = Math.round(performance.now() - killedAt)
  const job = await finished(stage, id, 15_000)
  stage.promise(`the job of a killed process ran again elsewhere after ${ms} ms`, ms < 2_000)
  stage.promise(
    `and no attempt was used for it (interruptions: ${job.interruptions})`,
    job.interruptions === 1,
  )
}

import { countRows, type Enqueued, type Scene, until } from '../stage.ts'

const total = 400

/** SIGHUP: the children are replaced one by one, under load. */
export const rolledWorker: Scene = {
  title: 'SIGHUP under load: every child replaced, no job interrupted',
  async play(stage) {
    const batch = Array.from({ length: total }, (_, n) => ({
      name: 'tally',
      payload: { scene: 'rolled-worker', n, forMs: 60 },
    }))
    const { jobs } = await stage.client.call<{ jobs: Enqueued[] }>('POST', '/v1/jobs', batch)
    const ids = jobs.map((job) => job.id)
    stage.say('kill -HUP the worker')
    stage.worker().signal('SIGHUP')
    const completed = `SELECT count(*)::int AS count FROM jobs WHERE id = ANY($1::uuid[]) AND outcome = 'completed'`
    await until('all jobs', 60_000, async () => (await countRows(stage, completed, [ids])) === total)
    const interrupted = await countRows(
      stage,
      'SELECT count(*)::int AS count FROM jobs WHERE id = ANY($1::uuid[]) AND interruptions > 0',
      [ids],
    )
    stage.promise(`${total} jobs ran meanwhile, ${interrupted} interrupted`, interrupted === 0)
  },
}

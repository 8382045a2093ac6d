import type { JobView } from '../../../platform/queues/ledger.ts'
import { countRows, type Enqueued, finished, type Scene, until } from '../stage.ts'

const steps = 60

/** SIGTERM, as a platform sends it at each deploy, while a long job runs. */
export const stoppedWorker: Scene = {
  title: 'SIGTERM in the middle of a long job, then a new worker',
  async play(stage) {
    const { id } = await stage.client.call<Enqueued>('POST', '/v1/jobs', {
      name: 'walk',
      payload: { scene: 'stopped-worker', steps, stepMs: 50 },
    })
    const look = (): Promise<JobView> => stage.client.call('GET', `/v1/jobs/${id}`)
    await until('ten steps', 15_000, async () => {
      const progress = (await look()).progress as { step?: number } | undefined
      return (progress?.step ?? 0) >= 10
    })
    stage.say('kill -TERM the worker')
    const stoppedAt = performance.now()
    stage.worker().signal('SIGTERM')
    const { code } = await stage.worker().exited
    const ms = Math.round(performance.now() - stoppedAt)
    stage.promise(`the worker was gone after ${ms} ms, exit code ${code}`, code === 0)
    const job = await look()
    stage.promise(
      `the job went back: ${job.state}, attempts ${job.attempts}, interruptions ${job.interruptions}`,
      job.state === 'waiting' && job.interruptions === 1,
    )
    await stage.startWorker()
    const end = await finished(stage, id, 30_000)
    const walked = await countRows(
      stage,
      `SELECT count(DISTINCT n)::int AS count FROM demo_effects WHERE scene = 'stopped-worker'`,
    )
    const rows = await countRows(
      stage,
      `SELECT count(*)::int AS count FROM demo_effects WHERE scene = 'stopped-worker'`,
    )
    stage.promise(
      `a new worker went on from its checkpoint: ${walked} of ${steps} steps, ${rows - walked} doubled`,
      end.state === 'completed' && walked === steps && rows === steps,
    )
  },
}

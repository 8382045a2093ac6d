import { countRows, type Enqueued, type Scene, until } from '../stage.ts'

const total = 600

/** Postgres itself is killed by SIGKILL and comes back, while jobs are accepted and run. */
export const killedDatabase: Scene = {
  title: 'Postgres killed by SIGKILL, and back',
  async play(stage) {
    const { server } = stage
    if (!server) {
      stage.say('DATABASE_URL names a server that is not ours to kill: left out')
      return
    }
    const accepted: string[] = []
    let refused = 0
    const enqueue = async (n: number): Promise<boolean> => {
      const job = { name: 'tally', payload: { scene: 'killed-database', n } }
      try {
        accepted.push((await stage.client.call<Enqueued>('POST', '/v1/jobs', job)).id)
        return true
      } catch {
        refused++
        return false
      }
    }
    const enqueueAll = async (): Promise<void> => {
      for (let n = 0; n < total; n++) await until('a web tier that accepts', 30_000, () => enqueue(n))
    }
    const restart = async (): Promise<void> => {
      await until('the first jobs', 10_000, async () => accepted.length >= 100)
      stage.say('kill -9 Postgres')
      await server.kill('SIGKILL')
      await server.restart()
    }
    await Promise.all([enqueueAll(), restart()])
    const completed = `SELECT count(*)::int AS count FROM jobs WHERE id = ANY($1::uuid[]) AND outcome = 'completed'`
    await until('all accepted jobs', 60_000, async () => {
      const count = await countRows(stage, completed, [accepted]).catch(() => -1)
      return count === accepted.length
    })
    stage.promise(
      `every accepted job ran: ${accepted.length}; ${refused} requests were refused meanwhile and sent again`,
      true,
    )
    const doubled = await countRows(
      stage,
      `SELECT count(*)::int - count(DISTINCT n)::int AS count FROM demo_effects WHERE scene = 'killed-database'`,
    )
    stage.promise(`no effect happened twice (${doubled} doubled)`, doubled === 0)
  },
}

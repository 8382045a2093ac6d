import { randomBytes, randomUUID } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { Readable } from 'node:stream'
import { type Bodies, createBodies } from '../../../src/domain/bodies/bodies.ts'
import { createReplicatedBody } from '../../../src/domain/bodies/replicated-body.ts'
import { createDirectoryStore } from '../../../src/domain/bodies/stores/directory.ts'
import { createReplicatedDevice } from '../../../src/domain/push/replicated-device.ts'
import { createReplicatedPush } from '../../../src/domain/push/replicated-push.ts'
import { createReplicatedStates } from '../../../src/domain/state/replicated-states.ts'
import { createPostgresStore } from '../../../src/domain/state/stores/postgres.ts'
import type { Postgres, Queryable } from '../../../src/platform/postgres/postgres.ts'
import { createReplicatedJob } from '../../../src/platform/queues/replicated-job.ts'
import { createApplyingPostgres } from '../../../src/platform/replication/applying.ts'
import { atEndOfTest } from '../../support/processes.ts'
import { clock, log, type MakeTypes } from './replay-pair.ts'

/** The five types as a site has them, with stores of bodies in folders. `opened` gets the bodies of each site. */
export function createFiveTypes(opened: Map<Postgres, Bodies>): MakeTypes {
  return async (postgres) => {
    const folder = await mkdtemp(path.join(tmpdir(), 'baton-replay-'))
    const open = (database: Postgres): Bodies =>
      createBodies({
        stores: ['a', 'b'].map((name) =>
          createDirectoryStore({ root: path.join(folder, name), clock, name }),
        ),
        postgres: database,
        clock,
        log,
        spoolFolder: folder,
      })
    const [bodies, arriving] = [open(postgres), open(createApplyingPostgres(postgres))]
    opened.set(postgres, bodies)
    atEndOfTest(async () => {
      await Promise.all([bodies.close(), arriving.close()])
      await rm(folder, { recursive: true, force: true })
    })
    return [
      createReplicatedBody({ postgres, bodies, arriving }),
      createReplicatedStates(),
      createReplicatedDevice(),
      createReplicatedPush(),
      createReplicatedJob(),
    ]
  }
}

export const putJobs = (database: Queryable, count: number): Promise<unknown> =>
  database.query(
    `INSERT INTO jobs (id, name, queue, payload, run_at)
     SELECT gen_random_uuid(), 'mail', 'default', json_build_object('n', i, 'text', repeat('x', 200)), now()
     FROM generate_series(1, $1::int) i`,
    [count],
  )

export const putDevices = (database: Queryable, count: number, prefix: string): Promise<unknown> =>
  database.query(
    `INSERT INTO devices (id, shard, user_id) SELECT $2 || i, 1, 'user ' || i % 50 FROM generate_series(1, $1::int) i`,
    [count, prefix],
  )

export const putPushes = (database: Queryable, count: number, device: string): Promise<unknown> =>
  database.query(
    `INSERT INTO pushes (id, device, shard, priority, state, payload, accepted_at, expires_at, due_at)
     SELECT gen_random_uuid(), $2, 1, false, 'pending', '{"a":1}', now(), now() + interval '1 day', now()
     FROM generate_series(1, $1::int)`,
    [count, device],
  )

export async function putStates(postgres: Postgres, device: string, states: number): Promise<void> {
  const store = createPostgresStore({ database: postgres, place: 'test:' })
  const uuid = randomUUID()
  for (let counter = 1; counter <= states; counter++) {
    await store.set(device, { type: '', uuid, counter }, randomBytes(2_000), {})
  }
}

export const putBody = (bodies: Bodies, size: number): Promise<{ id: string }> =>
  bodies.put(Readable.from([randomBytes(size)]))

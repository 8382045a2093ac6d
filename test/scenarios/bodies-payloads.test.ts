import { randomBytes } from 'node:crypto'
import { mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { Type } from 'typebox'
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { keepReferenced } from '../../jobs/bodies.ts'
import { createPayloads } from '../../src/cli/compose/payloads.ts'
import { createSystemClock } from '../../src/core/clock.ts'
import { sha256 } from '../../src/core/digest.ts'
import { createReleasers } from '../../src/core/lifecycle.ts'
import { type Bodies, createBodies } from '../../src/domain/bodies/bodies.ts'
import { createDirectoryStore } from '../../src/domain/bodies/stores/directory.ts'
import { createLog } from '../../src/platform/log.ts'
import { createMetrics } from '../../src/platform/metrics.ts'
import { type Acceptance, createAcceptance } from '../../src/platform/queues/accept.ts'
import { createEnqueueIn } from '../../src/platform/queues/enqueue-in.ts'
import { defineJob, done, type Job } from '../../src/platform/queues/job.ts'
import { createJobRunner } from '../../src/platform/queues/job-runner.ts'
import type { PayloadStore } from '../../src/platform/queues/payload-store.ts'
import { createRegistry } from '../../src/platform/queues/registry.ts'
import { type EngineKind, useStage } from '../platform/queues/harness.ts'
import { eventually } from '../support/processes.ts'

const clock = createSystemClock()
const log = createLog({ level: 'silent', process: 'test' })
const none = (): undefined => undefined
/** 100 KiB that no other test has. */
const large = (): string =>
  randomBytes(50 * 1_024)
    .toString('hex')
    .replaceAll(/[0-9a-f]{32}/g, '$& ')

/** Tells what it was given by the digest of its JSON. */
const tell = defineJob({
  name: 'tell',
  payload: Type.Unknown(),
  attempts: 1,
  backoff: { baseMs: 20, maxMs: 20 },
  async run(payload) {
    return done(sha256(JSON.stringify(payload)))
  },
}) as unknown as Job

describe.each<EngineKind>(['redis', 'postgres'])('large payloads on %s', (kind) => {
  const stage = useStage(kind)
  let folder: string
  let payloads: PayloadStore
  let acceptance: Acceptance
  let bodies: Bodies
  const releasers = createReleasers(none)

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'baton-payloads-'))
    const { postgres, ledger, backend } = stage()
    const config = { bodyStores: [`file:${folder}/a`, `file:${folder}/b`] }
    const ground = { config, clock, log, metrics: createMetrics(), postgres, ledger, backend, releasers }
    payloads = createPayloads(ground as never)
    acceptance = createAcceptance({ postgres, ledger, backend, clock, payloads, onError: none })
    const stores = ['a', 'b'].map((name) => createDirectoryStore({ root: join(folder, name), clock }))
    bodies = createBodies({ stores, postgres, clock, log })
  })
  afterAll(async () => {
    await acceptance.idle()
    await releasers.release()
    await bodies.close()
    await rm(folder, { recursive: true, force: true })
  })
  beforeEach(async () => {
    await stage().postgres.query('TRUNCATE jobs')
  })

  const work = async (): Promise<void> => {
    const { postgres, ledger, backend, bus } = stage()
    const runner = createJobRunner({
      registry: createRegistry([tell]),
      ledger,
      backend,
      database: postgres,
      deps: undefined,
      log,
      clock,
      metrics: { started: none, finished: none, interrupted: none, leftBehind: none },
      wakeBus: bus,
      runner: `runner-${randomBytes(4).toString('hex')}`,
      concurrency: 5,
      payloads,
    })
    onTestFinished(() => runner.close(2_000))
    await runner.start()
  }
  const accept = async (...given: unknown[]): Promise<string[]> =>
    (await acceptance.accept(given.map((payload) => ({ job: tell, payload })))).map(({ id }) => id)
  const rowOf = async (id: string): Promise<string> => {
    const sql = 'SELECT payload::text FROM jobs WHERE id = $1'
    return (await stage().postgres.query<{ payload: string }>(sql, [id])).rows[0]?.payload ?? ''
  }
  const bodyOf = async (id: string): Promise<string> =>
    (JSON.parse(await rowOf(id)) as Record<string, string>)['baton:payload'] ?? ''
  const fileOf = (store: string, body: string): string =>
    join(folder, store, 'bodies', body.slice(0, 2), body)

  it('reach their handlers as they were, in a batch with small ones, and leave short rows', async () => {
    const given = ['small', large(), { text: large(), n: 1 }, { 'baton:payload': 'a'.repeat(64) }, 7, large()]
    const ids = await accept(...given)
    const rows = await Promise.all(ids.map(rowOf))
    expect(rows.map((row) => row.includes('"baton:payload"'))).toEqual([false, true, true, true, false, true])
    expect(Math.max(...rows.map((row) => row.length))).toBeLessThan(500)
    await work()
    for (const [index, id] of ids.entries()) {
      const job = await stage().reaches(id, 'completed', 'failed')
      expect(job).toMatchObject({ state: 'completed', result: sha256(JSON.stringify(given[index])) })
    }
  })

  it('outlive one copy that is lost and one that is bad', async () => {
    const given = [large(), large()]
    const ids = await accept(...given)
    const [first, second] = await Promise.all(ids.map(bodyOf))
    await rm(fileOf('a', first as string))
    await writeFile(fileOf('a', second as string), 'wrong')
    await work()
    for (const [index, id] of ids.entries()) {
      const job = await stage().reaches(id, 'completed', 'failed')
      expect(job.result).toBe(sha256(JSON.stringify(given[index])))
    }
    await eventually(async () => {
      expect((await readFile(fileOf('a', first as string), 'utf8')).length).toBeGreaterThan(100_000)
      expect((await readFile(fileOf('a', second as string), 'utf8')).length).toBeGreaterThan(100_000)
    })
  })

  it('wait without using an attempt while their stores are away, and small ones go on', async () => {
    const payload = large()
    const [id = '', small = ''] = await accept(payload, 'small')
    const away = async (): Promise<void> => {
      for (const store of ['a', 'b']) {
        await rename(join(folder, store), join(folder, `${store}-away`))
        await writeFile(join(folder, store), '')
      }
    }
    const back = async (): Promise<void> => {
      for (const store of ['a', 'b']) {
        await rm(join(folder, store))
        await rename(join(folder, `${store}-away`), join(folder, store))
      }
    }
    await away()
    await work()
    await stage().reaches(small, 'completed')
    const waiting = await stage().reaches(id, 'delayed')
    expect(waiting).toMatchObject({ attempts: 0 })
    // Work that comes meanwhile is taken in all the same; its payload stays in its row.
    const [meanwhile = ''] = await accept(payload)
    expect((await rowOf(meanwhile)).length).toBeGreaterThan(100_000)
    expect((await stage().reaches(meanwhile, 'completed')).result).toBe(sha256(JSON.stringify(payload)))
    await back()
    await eventually(
      async () => {
        // Its only attempt: those before were none.
        expect(await stage().ledger.get(id)).toMatchObject({
          state: 'completed',
          attempts: 1,
          result: sha256(JSON.stringify(payload)),
        })
      },
      { timeoutMs: 30_000 },
    )
  })

  it('fail their job clearly when no sound copy is left, and it can be retried by hand once there is one', async () => {
    const payload = large()
    const [id = ''] = await accept(payload)
    const body = await bodyOf(id)
    for (const store of ['a', 'b']) await writeFile(fileOf(store, body), 'wrong')
    await work()
    const failed = await stage().reaches(id, 'failed')
    expect(failed.error).toMatchObject({ code: 'PAYLOAD_LOST', message: expect.stringContaining(body) })
    await bodies.put(
      (async function* () {
        yield Buffer.from(JSON.stringify(payload))
      })(),
    )
    expect(await stage().ledger.retry(id)).toBe('retried')
    await stage().backend.add('default', [{ id, name: 'tell', delayMs: 0, priority: 0 }])
    expect((await stage().reaches(id, 'completed')).result).toBe(sha256(JSON.stringify(payload)))
  })

  it('of a transaction that rolls back are swept, of one that commits are not', async () => {
    const { ledger, postgres } = stage()
    const enqueueIn = createEnqueueIn({ ledger, registry: createRegistry([tell]), clock, payloads })
    const [kept, gone] = [large(), large()]
    const { id } = await postgres.transaction((client) => enqueueIn(client, tell as never, kept as never))
    const rolled = postgres.transaction(async (client) => {
      await enqueueIn(client, tell as never, gone as never)
      throw new Error('rolled back')
    })
    await expect(rolled).rejects.toThrow('rolled back')
    expect((await bodies.stat(sha256(JSON.stringify(gone)))).copies).toBe(2)
    await sweepAll()
    await expect(bodies.stat(sha256(JSON.stringify(gone)))).rejects.toMatchObject({ code: 'BODY_NOT_FOUND' })
    expect(await bodyOf(id)).toBe(sha256(JSON.stringify(kept)))
    expect((await bodies.stat(await bodyOf(id))).copies).toBe(2)
  })

  it('do not starve whoever puts them away within transactions: each has its connections', async () => {
    const { ledger, postgres } = stage()
    const enqueueIn = createEnqueueIn({ ledger, registry: createRegistry([tell]), clock, payloads })
    const begunMs = clock.monotonicMs()
    // Five times as many as the pool has connections.
    const all = Array.from({ length: 40 }, () =>
      postgres.transaction((client) => enqueueIn(client, tell as never, large() as never)),
    )
    const rows = await Promise.all((await Promise.all(all)).map(({ id }) => rowOf(id)))
    expect(Math.max(...rows.map((row) => row.length))).toBeLessThan(500)
    expect(clock.monotonicMs() - begunMs).toBeLessThan(10_000)
  })

  /** Both phases, as if their times had passed. */
  const sweepAll = async (): Promise<void> => {
    const options = {
      retentionMs: 0,
      graceMs: 0,
      force: true,
      keepReferenced: (candidates: Set<string>) => keepReferenced(stage().postgres, candidates),
    }
    await bodies.upkeep.sweep(options)
    await bodies.upkeep.sweep(options)
  }

  it('are kept by every sweep as long as anything refers to them, in any order of events', async () => {
    const { postgres, ledger } = stage()
    const named = async (): Promise<string> => {
      const source = (async function* () {
        yield randomBytes(40)
      })()
      return (await bodies.put(source)).id
    }
    /** Each returns what it makes referred to, from then on. */
    const events = {
      payload: async () => [await bodyOf((await accept(large()))[0] as string)],
      'named in a large payload': async () => {
        const body = await named()
        const [id = ''] = await accept({ body, text: large() })
        return [body, await bodyOf(id)]
      },
      'named in a small payload': async () => {
        const body = await named()
        await accept({ body })
        return [body]
      },
      'named in a result': async () => {
        const body = await named()
        const [id = ''] = await accept('x')
        const run = { token: crypto.randomUUID(), runner: 'nobody' }
        expect((await ledger.start(id, run)).kind).toBe('started')
        await ledger.finish(id, run.token, { kind: 'completed', result: { thumbnails: [{ body }] } })
        return [body]
      },
      'named in a push': async () => {
        const body = await named()
        await postgres.query(
          `INSERT INTO pushes (id, device, shard, state, priority, payload, expires_at, due_at)
           VALUES (gen_random_uuid(), 'd', 0, 'pending', false, json_build_object('body', $1::text), now(), now())`,
          [body],
        )
        return [body]
      },
      'named by a schedule': async () => {
        const body = await named()
        await postgres.query(
          `INSERT INTO schedules (name, job, payload, cron, time_zone, next_at)
           VALUES ($1, 'tell', json_build_object('body', $1::text), '0 0 1 1 *', 'UTC', now() + interval '1 year')`,
          [body],
        )
        return [body]
      },
      'failed and retried': async () => {
        const [id = ''] = await accept(large())
        await ledger.cancel(id)
        await ledger.retry(id)
        return [await bodyOf(id)]
      },
      sweep: async () => {
        await sweepAll()
        return []
      },
    }
    const names = Object.keys(events) as (keyof typeof events)[]
    let swept = 0
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom(...names), { minLength: 1, maxLength: 12 }),
        async (order) => {
          const orphan = await named()
          const referred: string[] = []
          for (const name of order) referred.push(...(await events[name]()))
          await sweepAll()
          for (const body of referred) expect((await bodies.stat(body)).copies).toBe(2)
          await expect(bodies.stat(orphan)).rejects.toMatchObject({ code: 'BODY_NOT_FOUND' })
          // When the rows are gone, the bodies go too.
          await postgres.query('TRUNCATE jobs, pushes, schedules')
          await sweepAll()
          for (const body of referred)
            await expect(bodies.stat(body)).rejects.toMatchObject({ code: 'BODY_NOT_FOUND' })
          swept += referred.length
        },
      ),
      { numRuns: 12 },
    )
    expect(swept).toBeGreaterThan(10)
    const left = await readdir(join(folder, 'a', 'bodies'), { recursive: true })
    expect(left.filter((name) => name.length > 64)).toEqual([])
  })
})

import { createHash, randomBytes } from 'node:crypto'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import sharp, { type Sharp } from 'sharp'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Deps } from '../../jobs/deps.ts'
import { jobs } from '../../jobs/index.ts'
import { createSystemClock } from '../../src/core/clock.ts'
import { type Bodies, createBodies } from '../../src/domain/bodies/bodies.ts'
import { createDirectoryStore } from '../../src/domain/bodies/stores/directory.ts'
import { createLog } from '../../src/platform/log.ts'
import { DATABASE_OVERLOADED } from '../../src/platform/postgres/errors.ts'
import type { Job } from '../../src/platform/queues/job.ts'
import type { JobView } from '../../src/platform/queues/ledger.ts'
import { type TestRunner, useStage } from '../platform/queues/harness.ts'
import { eventually } from '../support/processes.ts'

const clock = createSystemClock()
const stage = useStage('redis')
let folder: string
let bodies: Bodies

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'baton-jobs-'))
  const stores = ['a', 'b'].map((name) => createDirectoryStore({ root: join(folder, name), clock }))
  const log = createLog({ level: 'silent', process: 'test' })
  bodies = createBodies({ stores, postgres: stage().postgres, clock, log })
})
afterAll(async () => {
  await bodies.close()
  await rm(folder, { recursive: true })
})

const start = (given: Partial<Bodies> = {}): Promise<TestRunner> => {
  const { postgres, run } = stage()
  const deps = { bodies: { ...bodies, ...given }, postgres, clock } as Deps
  return run(jobs as unknown as Job<never, Deps>[], { deps })
}
const upload = async (content: string | Buffer): Promise<string> => {
  const source = async function* () {
    yield Buffer.from(content)
  }
  return (await bodies.put(source())).id
}
const enqueue = (name: string, payload: unknown): Promise<string> => {
  const job = jobs.find((each) => each.name === name)
  if (!job) throw new Error(`no job ${name}`)
  return stage().enqueue(job, payload)
}
const finish = async (name: string, payload: unknown): Promise<JobView> =>
  stage().reaches(await enqueue(name, payload), 'completed', 'failed')

const rowsOf = async (dataset: string): Promise<{ line: string; data: unknown }[]> => {
  const sql = 'SELECT line, data FROM dataset_rows WHERE dataset = $1 ORDER BY line'
  return (await stage().postgres.query<{ line: string; data: unknown }>(sql, [dataset])).rows
}

/** Chunks come one by one, each when the test lets it: so a job can be met in the middle. */
function halting(everyBytes: number): { read: Bodies['read']; go(): void; open(): void } {
  let waiting = Promise.withResolvers<void>()
  let free = false
  return {
    read: async function* (id, options) {
      for await (const bytes of bodies.read(id, options)) {
        for (let at = 0; at < bytes.length; at += everyBytes) {
          if (!free) await waiting.promise
          yield bytes.subarray(at, at + everyBytes)
        }
      }
    },
    go: () => {
      waiting.resolve()
      waiting = Promise.withResolvers()
    },
    open: () => {
      free = true
      waiting.resolve()
    },
  }
}

const places = join(import.meta.dirname, '../fixtures/places.csv')

describe('import', () => {
  it('writes the rows of a file, and tells which lines are none', async () => {
    await start()
    const view = await finish('import', { body: await upload(await readFile(places)), dataset: 'places' })
    expect(view.result).toEqual({
      rows: 8,
      rejected: [
        { line: 6, reason: 'it has 3 fields, and the header 4' },
        { line: 9, reason: 'there is text behind a closing quote' },
      ],
    })
    const rows = await rowsOf('places')
    expect(rows).toHaveLength(8)
    expect(rows[0]).toEqual({
      line: '2',
      data: { name: 'Wien', country: 'AT', people: '2005760', note: 'on the Danube' },
    })
    expect(rows.map(({ line }) => line)).toEqual(['2', '3', '4', '7', '8', '11', '12', '13'])
  })

  it('takes NDJSON as it is', async () => {
    await start()
    const view = await finish('import', {
      body: await upload('{"n":1}\n{"n":{"m":"\\u0000"}}\n'),
      dataset: 'nd',
    })
    expect(view.result).toEqual({ rows: 2, rejected: [] })
    expect((await rowsOf('nd'))[1]?.data).toEqual({ n: { m: '\u0000' } })
  })

  it('replaces what the dataset had', async () => {
    await start()
    await finish('import', { body: await upload('a\n1\n2\n3\n'), dataset: 'again' })
    await finish('import', { body: await upload('a\n9\n'), dataset: 'again' })
    expect(await rowsOf('again')).toEqual([{ line: '2', data: { a: '9' } }])
    await finish('import', { body: await upload(''), dataset: 'again' })
    expect(await rowsOf('again')).toEqual([])
  })

  it('deletes old rows in bites, and goes on with them after an interruption', async () => {
    const { postgres } = stage()
    await postgres.query(`INSERT INTO datasets (name, import) VALUES ('huge', gen_random_uuid())`)
    await postgres.query(
      `INSERT INTO dataset_rows (dataset, line, data) SELECT 'huge', n, '1' FROM generate_series(1, 45000) AS n`,
    )
    const left = async (): Promise<number> => {
      const { rows } = await postgres.query<{ n: number }>(
        `SELECT count(*)::int AS n FROM dataset_rows WHERE dataset = 'huge'`,
      )
      return rows[0]?.n ?? 0
    }
    await postgres.query(
      `CREATE TABLE bitten (rows int);
       CREATE FUNCTION note_bite() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN INSERT INTO bitten SELECT count(*) FROM old; PERFORM pg_sleep(0.4); RETURN NULL; END $$;
       CREATE TRIGGER note_bite AFTER DELETE ON dataset_rows REFERENCING OLD TABLE AS old
         FOR EACH STATEMENT EXECUTE FUNCTION note_bite()`,
    )
    const first = await start()
    const id = await enqueue('import', { body: await upload('a\nnew\n'), dataset: 'huge' })
    await eventually(async () => expect(await left()).toBeLessThan(45_000))
    await first.drain()
    expect(await left()).toBeGreaterThan(1)
    expect((await stage().ledger.get(id))?.interruptions).toBe(1)
    await first.close(2_000)
    await start()
    expect((await stage().reaches(id, 'completed')).result).toEqual({ rows: 1, rejected: [] })
    expect(await rowsOf('huge')).toEqual([{ line: '2', data: { a: 'new' } }])
    const { rows } = await postgres.query<{ rows: number }>('SELECT rows FROM bitten WHERE rows > 0')
    expect(rows.map((bite) => bite.rows).sort((a, b) => b - a)).toEqual([
      10_000, 10_000, 10_000, 10_000, 5_000,
    ])
    await postgres.query('DROP TRIGGER note_bite ON dataset_rows; DROP FUNCTION note_bite; DROP TABLE bitten')
  })

  it('lists no more rejected lines than fit, and counts the rest', async () => {
    await start()
    const view = await finish('import', {
      body: await upload(`a,b\n${'1\n'.repeat(1_200)}1,2\n`),
      dataset: 'bad',
    })
    expect(view.result).toMatchObject({ rows: 1, moreRejected: 1_100 })
    expect((view.result as { rejected: unknown[] }).rejected).toHaveLength(100)
  })

  const lines = Array.from({ length: 20_000 }, (_each, n) =>
    n % 7 === 0 ? `${n},"two\n""${n}"""` : `${n},x`,
  )
  const big = `n,text\n${lines.join('\n')}\n`

  const endings = [
    { how: 'drained', rounds: 4, take: (runner: TestRunner) => runner.drain() },
    // It is met between two batches: the transaction of a process that dies ends with its connection.
    { how: 'killed', rounds: 2, take: (runner: TestRunner) => quietRows().then(() => runner.die()) },
  ]
  const quietRows = async (): Promise<void> => {
    let before = -1
    for (let now = 0; now !== before; await clock.sleep(300)) {
      before = now
      now =
        (await stage().postgres.query<{ n: number }>('SELECT count(*)::int AS n FROM dataset_rows')).rows[0]
          ?.n ?? 0
    }
  }

  it.each(endings)(
    'has each row once when its runner is $how again and again',
    async ({ how, rounds, take }) => {
      const dataset = `big-${how}`
      const id = await enqueue('import', { body: await upload(big), dataset })
      for (let round = 1; round <= rounds; round++) {
        const { read, go, open } = halting(10_000)
        const runner = await start({ read })
        // Let it work until it has saved more than the round before, then take the runner away in the middle.
        const further = async (): Promise<void> => {
          go()
          expect((await rowsOf(dataset)).length).toBeGreaterThan(round * 2_000)
        }
        await eventually(further, { timeoutMs: 20_000 })
        await Promise.all([take(runner), clock.sleep(how === 'drained' ? 50 : 1_000).then(open)])
        await runner.close(1_000)
      }
      const readFrom: number[] = []
      await start({
        read: (body, options) => {
          readFrom.push(options?.start ?? 0)
          return bodies.read(body, options)
        },
      })
      const view = await eventually(
        async () => {
          const now = await stage().ledger.get(id)
          expect(now?.state).toBe('completed')
          return now
        },
        { timeoutMs: 20_000 },
      )
      expect(view?.result).toEqual({ rows: 20_000, rejected: [] })
      expect(view?.interruptions).toBeGreaterThanOrEqual(rounds)
      expect(readFrom[0]).toBeGreaterThan(rounds * 10_000)
      const rows = await rowsOf(dataset)
      expect(rows.map(({ data }) => (data as { n: string }).n)).toEqual(lines.map((_line, n) => String(n)))
      expect(rows[7]?.data).toEqual({ n: '7', text: 'two\n"7"' })
    },
    60_000,
  )

  it('gives way to a newer import into the same dataset', async () => {
    const { read, go, open } = halting(10_000)
    const older = await start({ read })
    const id = await enqueue('import', { body: await upload(big), dataset: 'raced' })
    await eventually(async () => {
      go()
      expect((await rowsOf('raced')).length).toBeGreaterThan(0)
    })
    older.quiet()
    await start()
    await finish('import', { body: await upload('a\nnew\n'), dataset: 'raced' })
    open()
    const view = await stage().reaches(id, 'failed')
    expect(view).toMatchObject({ attempts: 1, error: { code: 'DATASET_TAKEN_OVER' } })
    expect(await rowsOf('raced')).toEqual([{ line: '2', data: { a: 'new' } }])
  })

  it.each([
    ['a body that is not there', createHash('sha256').update('none').digest('hex'), 'BODY_NOT_FOUND'],
    ['something that is no id', '../../etc/passwd', 'BODY_ID_INVALID'],
  ])('fails at once, without a retry, for %s', async (_what, body, code) => {
    await start()
    expect(await finish('import', { body, dataset: 'none' })).toMatchObject({
      state: 'failed',
      attempts: 1,
      error: { code },
    })
  })
})

describe('report', () => {
  it('counts the rows by a column', async () => {
    await start()
    const view = await finish('report', { body: await upload(await readFile(places)), column: 'country' })
    expect(view.result).toEqual({ AT: 3, DE: 2, CH: 1, '': 1, FR: 1 })
    expect(view.progress).toBe(8)
  })

  it('counts NDJSON too, what is missing as nothing', async () => {
    await start()
    const body = await upload('{"a":1}\n{"a":"1"}\n{"a":true}\n{"a":null}\n{"b":1}\n')
    expect((await finish('report', { body, column: 'a' })).result).toEqual({ '1': 2, true: 1, '': 2 })
  })

  it('of a file without rows is empty', async () => {
    await start()
    expect((await finish('report', { body: await upload(''), column: 'any' })).result).toEqual({})
    expect((await finish('report', { body: await upload('a,b\n'), column: 'a' })).result).toEqual({})
  })

  it.each(['a,b\n1,2\n', '{"a":1,"b":2}\n'])(
    'fails at once for a column that is not there: %j',
    async (text) => {
      await start()
      const view = await finish('report', { body: await upload(text), column: 'toString' })
      expect(view).toMatchObject({
        state: 'failed',
        attempts: 1,
        error: { code: 'COLUMN_UNKNOWN', message: 'The table has no column "toString". It has: a, b.' },
      })
    },
  )

  it('fails at once when there are too many values', async () => {
    await start()
    const text = `a\n${Array.from({ length: 6_000 }, (_each, n) => n).join('\n')}`
    const view = await finish('report', { body: await upload(text), column: 'a' })
    expect(view).toMatchObject({ state: 'failed', attempts: 1, error: { code: 'REPORT_TOO_LONG' } })
  })

  it('waits while the database is overloaded, and uses no attempt for it', async () => {
    let refusals = 8
    await start({
      read: (body, options) => {
        if (refusals-- > 0) throw DATABASE_OVERLOADED({ reason: 'full' }, { retryAfterMs: 20 })
        return bodies.read(body, options)
      },
    })
    const view = await finish('report', { body: await upload('a\n1\n'), column: 'a' })
    expect(view).toMatchObject({ state: 'completed', attempts: 1, result: { '1': 1 } })
  })

  it('counts each row once although it is interrupted', async () => {
    const text = `kind\n${'a\nb\nb\n'.repeat(10_000)}`
    const { read, go, open } = halting(5_000)
    const runner = await start({ read })
    const id = await enqueue('report', { body: await upload(text), column: 'kind' })
    // Half of it at most: a progress that is written late must find the job still at work.
    let pieces = 0
    await eventually(async () => {
      if (pieces++ < 6) go()
      expect((await stage().ledger.get(id))?.progress).toBeGreaterThan(2_000)
    })
    await Promise.all([runner.drain(), clock.sleep(50).then(open)])
    await start()
    const view = await stage().reaches(id, 'completed')
    expect(view.interruptions).toBe(1)
    expect(view.result).toEqual({ a: 10_000, b: 20_000 })
  })
})

describe('photo', () => {
  const picture = (width: number, height: number): Sharp =>
    sharp(randomBytes(width * height * 3), { raw: { width, height, channels: 3 } })
  const thumbnailsOf = (view: JobView): { width: number; height: number; body: string }[] =>
    (view.result as { thumbnails: { width: number; height: number; body: string }[] }).thumbnails
  const load = async (id: string): Promise<Buffer> =>
    Buffer.concat(await (await bodies.get(id)).stream.toArray())

  it('makes a thumbnail of each width, and none that is larger than the photo', async () => {
    await start()
    const body = await upload(await picture(300, 200).jpeg().toBuffer())
    const thumbnails = thumbnailsOf(await finish('photo', { body, widths: [30, 150, 3_000] }))
    expect(thumbnails.map(({ width, height }) => [width, height])).toEqual([
      [30, 20],
      [150, 100],
      [300, 200],
    ])
    for (const { width, height, body: id } of thumbnails) {
      expect(await sharp(await load(id)).metadata()).toMatchObject({ format: 'jpeg', width, height })
    }
  })

  it('turns it upright, and keeps its place and its owner to itself', async () => {
    await start()
    const turned = picture(300, 200)
      .jpeg()
      .withMetadata({ orientation: 6 })
      .withExif({ IFD0: { Copyright: 'Ann' } })
    const body = await upload(await turned.keepMetadata().withMetadata({ orientation: 6 }).toBuffer())
    const [thumbnail] = thumbnailsOf(await finish('photo', { body, widths: [100] }))
    expect(thumbnail).toMatchObject({ width: 100, height: 150 })
    const { orientation, exif } = await sharp(await load(thumbnail?.body ?? '')).metadata()
    expect([orientation, exif]).toEqual([undefined, undefined])
  })

  it('keeps transparency', async () => {
    await start()
    const image = sharp({
      create: { width: 50, height: 50, channels: 4, background: { r: 1, g: 2, b: 3, alpha: 0.5 } },
    })
    const body = await upload(await image.png().toBuffer())
    const [thumbnail] = thumbnailsOf(await finish('photo', { body, widths: [10] }))
    expect(await sharp(await load(thumbnail?.body ?? '')).metadata()).toMatchObject({
      format: 'png',
      hasAlpha: true,
    })
  })

  /** A small PNG that says of itself that it unpacks to 60,000 by 60,000 pixels. */
  const bomb = async (small: Sharp): Promise<Buffer> => {
    const bytes = await small.png().toBuffer()
    const [header, width] = [12, 16]
    bytes.writeUInt32BE(60_000, width)
    bytes.writeUInt32BE(60_000, width + 4)
    bytes.writeUInt32BE(crc32(bytes.subarray(header, header + 17)), header + 17)
    return bytes
  }

  const broken: [string, RegExp, () => Promise<Buffer>][] = [
    ['text', /unsupported image format/, async () => Buffer.from('no picture')],
    ['nothing', /empty/, async () => Buffer.alloc(0)],
    [
      'half a photo',
      /premature end|truncated/i,
      async () => (await picture(300, 200).jpeg().toBuffer()).subarray(0, 9_000),
    ],
    [
      'a program for pictures',
      /unsupported|blocked/,
      async () => Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
    ],
    ['a bomb', /pixel limit/, () => bomb(picture(8, 8))],
  ]
  it.each(broken)(
    'fails at once, without a retry, for %s',
    async (_what, reason, make) => {
      await start()
      const view = await finish('photo', { body: await upload(await make()), widths: [10] })
      expect(view).toMatchObject({ state: 'failed', attempts: 1, error: { code: 'PHOTO_INVALID' } })
      expect(view.error?.message).toMatch(reason)
    },
    30_000,
  )
})

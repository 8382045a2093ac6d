import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readdir, rm, truncate } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { pino } from 'pino'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { createBodies } from '../../../src/domain/bodies/bodies.ts'
import { createBodyStores } from '../../../src/domain/bodies/create-body-store.ts'
import { createPostgres, type Postgres } from '../../../src/platform/postgres/postgres.ts'
import { readRange } from '../../../src/runtime/web/routes/bodies.ts'
import { testDatabase } from '../../support/databases.ts'
import { type Harness, problem, producer, startHarness, viewer } from './web-harness.ts'

let folder: string
let postgres: Postgres
let bodies: ReturnType<typeof createBodies>
let api: Harness
const bytes = randomBytes(2_500_000)
const id = createHash('sha256').update(bytes).digest('hex')

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'baton-web-bodies-'))
  const clock = createSystemClock()
  const { url } = await testDatabase()
  postgres = createPostgres({ url, max: 4, applicationName: 'test bodies', onError: () => undefined })
  const stores = createBodyStores([`file:${folder}/a`, `file:${folder}/b`], clock)
  bodies = createBodies({ stores, postgres, clock, log: pino({ level: 'silent' }), maxBytes: 3_000_000 })
  api = await startHarness({ databaseUrl: url, bodies })
})
afterAll(async () => {
  await api.close()
  await bodies.close()
  await postgres.close()
  await rm(folder, { recursive: true })
})

const put = (body: Uint8Array<ArrayBuffer> | ReadableStream, key = producer, query = ''): Promise<Response> =>
  api.request(`/v1/bodies${query}`, {
    method: 'PUT',
    key,
    body,
    duplex: 'half' as const,
    headers: { 'content-type': 'image/png' },
  })
const get = (headers: Record<string, string> = {}, which = id): Promise<Response> =>
  api.request(`/v1/bodies/${which}`, { key: viewer, headers })

describe('bodies', () => {
  it('larger than a JSON body may be are stored under their sha256 and come back byte for byte', async () => {
    const response = await put(bytes)
    expect(response.status).toBe(201)
    expect(await response.json()).toEqual({ id, size: bytes.length, copies: 2 })
    const answer = await get()
    expect(answer.headers.get('etag')).toBe(`"${id}"`)
    expect(answer.headers.get('content-length')).toBe(String(bytes.length))
    expect(answer.headers.get('x-content-type-options')).toBe('nosniff')
    expect(Buffer.from(await answer.arrayBuffer()).equals(bytes)).toBe(true)
  })

  it('are given in ranges, or not at all to who has them', async () => {
    const part = async (range: string): Promise<[number, string | null, Buffer]> => {
      const answer = await get({ range })
      return [answer.status, answer.headers.get('content-range'), Buffer.from(await answer.arrayBuffer())]
    }
    expect(await part('bytes=0-9')).toEqual([206, `bytes 0-9/${bytes.length}`, bytes.subarray(0, 10)])
    expect(await part('bytes=-7')).toEqual([206, expect.anything(), bytes.subarray(-7)])
    expect((await part('bytes=2499990-'))[2]).toEqual(bytes.subarray(2_499_990))
    expect((await part('lines=1-2'))[0]).toBe(200)
    // A part that is all of it is one too: who goes on with a download reads from `Content-Range` that nothing is left.
    expect((await part('bytes=0-9000000')).slice(0, 2)).toEqual([
      206,
      `bytes 0-${bytes.length - 1}/${bytes.length}`,
    ])
    expect((await part('bytes=9000000-')).slice(0, 2)).toEqual([416, `bytes */${bytes.length}`])
    expect((await get({ 'if-none-match': `"x", W/"${id}"` })).status).toBe(304)
    expect((await get({ range: 'bytes=0-9', 'if-range': '"other"' })).status).toBe(200)
    const head = await api.request(`/v1/bodies/${id}`, { method: 'HEAD', key: viewer })
    expect([head.status, head.headers.get('content-length')]).toEqual([200, String(bytes.length)])
  })

  it('are told by HEAD as a GET would find them, also when their copies are gone or cut', async () => {
    const content = randomBytes(5_000)
    expect((await put(content)).status).toBe(201)
    const own = createHash('sha256').update(content).digest('hex')
    const head = async (): Promise<[number, string | null]> => {
      const { status, headers } = await api.request(`/v1/bodies/${own}`, { method: 'HEAD', key: viewer })
      return [status, headers.get('content-length')]
    }
    const copies = ['a', 'b'].map((store) => path.join(folder, store, 'bodies', own.slice(0, 2), own))
    expect(await head()).toEqual([200, '5000'])
    await rm(copies[0] ?? '')
    expect(await head()).toEqual([200, '5000'])
    await bodies.idle()
    for (const copy of copies) await truncate(copy, 4_999)
    expect((await head())[0]).toBe(503)
    await bodies.idle()
    for (const copy of copies) await rm(copy, { force: true })
    expect((await head())[0]).toBe(503)
    expect((await api.request(`/v1/bodies/${'e'.repeat(64)}`, { method: 'HEAD', key: viewer })).status).toBe(
      404,
    )
  })

  it('are refused with their reason, and nothing is left of them', async () => {
    const before = await filesIn(folder)
    expect(await problem(await put(new Uint8Array(3_000_001)))).toMatchObject({
      status: 413,
      code: 'BODY_TOO_LARGE',
    })
    expect((await put(bytes, viewer)).status).toBe(403)
    expect(await problem(await get({}, 'f'.repeat(64)))).toMatchObject({
      status: 404,
      code: 'BODY_NOT_FOUND',
    })
    expect(await problem(await get({}, 'not-an-id'))).toMatchObject({ status: 400, code: 'BODY_ID_INVALID' })
    await expect.poll(() => filesIn(folder)).toEqual(before)
  })

  it('are refused before their bytes have come when they say that they are too large', async () => {
    const socket = connect(Number(new URL(api.url).port), '127.0.0.1')
    onTestFinished(() => void socket.destroy())
    const head = `PUT /v1/bodies HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${producer}\r\n`
    socket.write(`${head}Content-Type: image/png\r\nContent-Length: 3000001\r\n\r\n`)
    const [answer] = (await once(socket, 'data')) as [Buffer]
    expect(answer.toString()).toMatch(/^HTTP\/1\.1 413 [\s\S]*"code":"BODY_TOO_LARGE"/)
  })

  it.each(['copies=9', 'copies=', 'copy=1'])('are not taken for a question of ?%s', async (query) => {
    const response = await api.request(`/v1/bodies?${query}`, { method: 'PUT', key: producer, body: 'x' })
    expect(await problem(response)).toMatchObject({ status: 400, code: 'INPUT_INVALID' })
  })

  it('stand in the documents as bytes', async () => {
    const document = (await (await api.request('/openapi.json')).json()) as {
      paths: Record<string, Record<string, Record<string, unknown>>>
    }
    const bytesAlone = { content: { 'application/octet-stream': expect.anything() } }
    expect(document.paths['/v1/bodies']?.['put']).toMatchObject({ requestBody: bytesAlone })
    expect(document.paths['/v1/bodies/{id}']?.['get']).toMatchObject({ responses: { 200: bytesAlone } })
  })

  it('of a client that leaves half-way are not kept', async () => {
    const before = await filesIn(folder)
    const half = new ReadableStream({
      pull: (controller) => {
        controller.enqueue(randomBytes(500_000))
        controller.error(new Error('gone'))
      },
    })
    await expect(put(half)).rejects.toThrow('fetch failed')
    await expect.poll(() => filesIn(folder)).toEqual(before)
  })

  it('may be empty', async () => {
    const response = await put(new Uint8Array(0))
    expect(await response.json()).toMatchObject({ size: 0, id: createHash('sha256').digest('hex') })
  })
})

describe('readRange', () => {
  it.each([
    ['bytes=0-0', { start: 0, end: 1 }],
    ['bytes= 5-', { start: 5 }],
    ['bytes=-3', { suffix: 3 }],
    ['bytes=3-1', undefined],
    ['bytes=-', undefined],
    ['bytes=0-1,3-4', undefined],
    ['bytes=1e3-', undefined],
  ])('%s', (header, range) => expect(readRange(header)).toEqual(range))
})

const filesIn = async (place: string): Promise<string[]> =>
  (await readdir(place, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => entry.name)
    .sort()

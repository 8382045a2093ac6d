import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { request as open } from 'node:http'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { expect, it, onTestFinished } from 'vitest'
import { createControl, type RevisionRequest } from '../../../src/runtime/gateway/control.ts'
import type { Gateway } from '../../../src/runtime/gateway/gateway.ts'
import type { RevisionSpec } from '../../../src/runtime/gateway/record.ts'

async function start(name = 'g.sock') {
  const folder = await mkdtemp(path.join(tmpdir(), 'baton-gateway-control-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  const socket = path.join(folder, name)
  const asked: unknown[] = []
  const note =
    (verb: string) =>
    (...what: unknown[]): unknown => {
      asked.push([verb, ...what])
      return { verb }
    }
  const gateway = { upgrade: note('upgrade'), extend: note('extend'), end: note('end') } as unknown as Gateway
  const create = () =>
    createControl({
      socket,
      gateway: () => gateway,
      complete: (request: RevisionRequest) => ({ ...request }) as unknown as RevisionSpec,
    })
  const control = create()
  onTestFinished(() => control.close())
  const post = (route: string, body: string): Promise<{ status: number; said: { code?: string } }> =>
    new Promise((resolve, reject) => {
      const request = open({ socketPath: socket, method: 'POST', path: route, agent: false }, (answer) => {
        text(answer).then(
          (said) => resolve({ status: answer.statusCode ?? 0, said: JSON.parse(said) as { code?: string } }),
          reject,
        )
      })
      request.on('error', reject)
      request.end(body)
    })
  return { socket, asked, create, control, post }
}

it('can be opened by its owner alone, and once', async () => {
  const { control, create, socket } = await start()
  await control.open()
  expect((await stat(socket)).mode & 0o777).toBe(0o600)
  await expect(create().open()).rejects.toMatchObject({ code: 'GATEWAY_ALREADY_RUNNING' })
  control.close()
  const next = create()
  await next.open()
  next.close()
})

it('says what is wrong with its path', async () => {
  await expect((await start('x'.repeat(100))).control.open()).rejects.toMatchObject({
    code: 'GATEWAY_SOCKET_UNUSABLE',
    message: expect.stringContaining('longer than 100 bytes') as string,
  })
})

it('removes what a killed gateway left, and nothing else that lies in its place', async () => {
  const { control, socket } = await start()
  await writeFile(socket, 'dear')
  await expect(control.open()).rejects.toMatchObject({ code: 'GATEWAY_SOCKET_UNUSABLE' })
  expect(await readFile(socket, 'utf8')).toBe('dear')
  await expect((await start('g.sock/under')).control.open()).resolves.toBeUndefined()
  const under = createControl({
    socket: path.join(socket, 'g.sock'),
    gateway: () => undefined as unknown as Gateway,
    complete: () => undefined as unknown as RevisionSpec,
  })
  await expect(under.open()).rejects.toMatchObject({ code: 'GATEWAY_SOCKET_UNUSABLE' })
})

it('passes on what is well asked', async () => {
  const { control, post, asked } = await start()
  await control.open()
  const request = { revision: 'v1.2_3+4', directory: '/srv', command: ['a', 'b'], environment: { A: 'b' } }
  expect(await post('/upgrade', JSON.stringify(request))).toEqual({ status: 200, said: { verb: 'upgrade' } })
  await post('/extend', '{"revision":"a","ms":5}')
  await post('/end', '{"revision":"a"}')
  expect(asked).toEqual([
    ['upgrade', request, 'v1.2_3+4'],
    ['extend', 'a', 5],
    ['end', 'a'],
  ])
})

it.each([
  ['/upgrade', 'no JSON'],
  ['/upgrade', '{"revision":""}'],
  ['/upgrade', '{"revision":"a\\r\\nX: y"}'],
  ['/upgrade', '{"directory":"relative"}'],
  ['/upgrade', '{"command":[]}'],
  ['/upgrade', '{"command":["a",1]}'],
  ['/upgrade', '{"environment":"A=b"}'],
  ['/upgrade', '{"environment":{"A":1}}'],
  ['/extend', '{"revision":"a","ms":0}'],
  ['/extend', '{"revision":"a","ms":1.5}'],
  ['/extend', '{"ms":5}'],
  ['/end', '[]'],
])('refuses %s %s', async (route, body) => {
  const { control, post, asked } = await start()
  await control.open()
  expect(await post(route, body)).toMatchObject({ status: 400, said: { code: 'GATEWAY_INPUT_INVALID' } })
  expect(asked).toEqual([])
})

it('knows no other paths', async () => {
  const { control, post } = await start()
  await control.open()
  expect(await post('/nothing', '{}')).toMatchObject({ status: 404, said: { code: 'GATEWAY_PATH_UNKNOWN' } })
})

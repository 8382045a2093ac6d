import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { runBaton } from '../cli/run-baton.ts'
import { type GatewaySite, openBrowser, openGateway, standIn } from '../support/gateway-site.ts'
import { eventually, isRunning } from '../support/processes.ts'

const pidOf = async (site: GatewaySite, revision: string): Promise<number> =>
  (await site.target(revision))?.pid ?? Number.NaN

it('stops on TERM with all its targets: what is under way is finished, HUP is nothing, and the exit is 0', async () => {
  const site = await openGateway()
  const gateway = await site.start()
  const browser = openBrowser(site.url)
  await browser.revision()
  await site.upgrade('two')
  gateway.signal('SIGHUP')
  await gateway.waitForLine(/HUP changes nothing/)
  const slow = [browser.get('/slow?ms=700'), fetch(`${site.url}/slow?ms=700`)]
  await eventually(async () => {
    const { targets } = await site.status()
    expect(targets.map(({ inFlight }) => inFlight)).toEqual([1, 1])
  })
  gateway.signal('SIGTERM')
  await eventually(async () => expect((await fetch(`${site.url}/.gateway/readyz`)).status).toBe(503))
  gateway.signal('SIGTERM')
  for (const answer of slow) expect((await answer).status).toBe(200)
  expect(await gateway.exit).toEqual({ code: 0, signal: null })
  expect(site.targetPids()).toEqual([])
  expect(JSON.parse(await readFile(path.join(site.folder, 'g.json'), 'utf8'))).toMatchObject({ targets: [] })
  expect(await site.run('status')).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('GATEWAY_NOT_RUNNING') as string,
  })
  // The cookie outlives it.
  await site.start(['--revision', 'three', '--env', 'REVISION=three', '--', ...standIn])
  expect(await browser.revision()).toBe('three')
  expect(browser.movedFrom).toBe('one')
})

it('kills what does not end in time, with 75, and refuses a second gateway on its socket', async () => {
  const site = await openGateway({ SHUTDOWN_MS: '2000', BREAK: 'ignore-term' })
  const gateway = await site.start()
  const second = await site.run('--', ...standIn)
  expect(second).toMatchObject({ code: 1, stderr: expect.stringContaining('PORT_UNAVAILABLE') as string })
  const env = { PORT: '0', GATEWAY_SOCKET: path.join(site.folder, 'g.sock'), BATON_SECRET: 'x'.repeat(16) }
  const third = await runBaton(['gateway', '--', ...standIn], { env })
  expect(third).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('GATEWAY_ALREADY_RUNNING') as string,
  })
  const began = performance.now()
  gateway.signal('SIGTERM')
  expect(await gateway.exit).toEqual({ code: 75, signal: null })
  expect(performance.now() - began).toBeLessThan(2_400)
  expect(site.targetPids()).toEqual([])
})

it('drains: requests finish, event streams end between events, WebSockets with 1012, and their clients come back', async () => {
  const site = await openGateway({ GATEWAY_STREAM_CLOSE_MS: '300' })
  await site.start()
  const browser = openBrowser(site.url)
  await browser.revision()
  const events = await browser.get('/events?half')
  const free = new WebSocket(`ws://127.0.0.1:${site.port}/socket`)
  await once(free, 'open')
  const slow = browser.get('/slow?ms=800')
  await eventually(async () => expect(await site.target('one')).toMatchObject({ streams: 2, inFlight: 1 }))
  const old = await pidOf(site, 'one')
  await site.upgrade('two')
  // What belongs to no session has no reason to stay.
  const [closed] = (await once(free, 'close')) as [{ code: number; wasClean: boolean }]
  expect(closed).toMatchObject({ code: 1012, wasClean: true })
  expect(await site.target('one')).toMatchObject({ state: 'detached', streams: 1 })

  expect((await site.run('extend', 'one', '--minutes', '5')).stdout).toContain('one may stay until')
  expect((await site.run('end', 'two')).stderr).toContain('REVISION_NOT_DETACHED')
  expect((await site.run('end', 'none')).stderr).toContain('REVISION_NOT_FOUND')
  expect((await site.run('end', 'one')).stdout).toBe('one drains\n')
  // Half of an event is never followed by the end.
  await pause(500)
  const { targets } = await site.status()
  const drained = targets.find(({ revision }) => revision === 'one')
  await fetch(`http://127.0.0.1:${drained?.port}/finish-halves`)
  expect(await events.text()).toMatch(/^id: 1\ndata: one\n\ndata: half\n\nretry: \d+\n\n$/)
  expect(await (await slow).json()).toEqual({ revision: 'one' })
  expect(await browser.revision()).toBe('two')
  expect(browser.movedFrom).toBe('one')
  await eventually(async () => expect(await isRunning(old)).toBe(false), { timeoutMs: 10_000 })
})

it('drains a detached target that nobody has used for long, or that is one too many', async () => {
  const site = await openGateway({ GATEWAY_DETACHED_MAX: '1', GATEWAY_IDLE_MS: '1500' })
  await site.start()
  const browsers = [openBrowser(site.url), openBrowser(site.url)]
  const [first, second] = browsers
  await first?.revision()
  await site.upgrade('two')
  await second?.revision()
  await site.upgrade('three')
  // One too many: the oldest.
  expect(await first?.revision()).toBe('three')
  expect(first?.movedFrom).toBe('one')
  expect(await second?.revision()).toBe('two')
  await eventually(async () => expect(await site.target('one')).toBeUndefined(), { timeoutMs: 10_000 })
  // Idle.
  await eventually(async () => expect(await site.target('two')).toBeUndefined(), { timeoutMs: 10_000 })
  expect(site.process.lines.join('\n')).toContain('"why":"nobody holds it"')
  expect(await second?.revision()).toBe('three')
})

it('ends with 1 when its first revision does not come up, and says what it printed', async () => {
  const site = await openGateway({ BREAK: 'exit' })
  const { code, stderr } = await site.run('--revision', 'one', '--', ...standIn)
  expect(code).toBe(1)
  expect(stderr).toMatch(/Revision one did not come up: it ended by itself[^]*cannot open the frobnicator/)
  expect(site.targetPids()).toEqual([])
})

it('leaves what it has taken over alone when its start fails after that', async () => {
  const site = await openGateway()
  const first = await site.start()
  const browser = openBrowser(site.url)
  await browser.revision()
  await site.upgrade('two')
  const [one, two] = [await pidOf(site, 'one'), await pidOf(site, 'two')]
  first.child.kill('SIGKILL')
  await first.exit
  process.kill(two, 'SIGKILL')
  await eventually(() => expect(site.targetPids()).toEqual([one]))

  const failed = await site.run('--env', 'BREAK=exit', '--', ...standIn)
  expect(failed).toMatchObject({ code: 1, stderr: expect.stringContaining('REVISION_UNUSABLE') as string })
  expect(site.targetPids()).toEqual([one])
  await site.start(['--revision', 'three', '--env', 'REVISION=three', '--', ...standIn])
  expect(await browser.revision()).toBe('one')
  expect(await openBrowser(site.url).revision()).toBe('three')
})

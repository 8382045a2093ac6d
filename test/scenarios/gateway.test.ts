import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { expect, it } from 'vitest'
import { type GatewaySite, openBrowser, openGateway, standIn } from '../support/gateway-site.ts'
import { eventually, isRunning } from '../support/processes.ts'

const pidOf = async (site: GatewaySite, revision: string): Promise<number> =>
  (await site.target(revision))?.pid ?? Number.NaN

/** Asks without a pause until it is stopped. @returns every answer's revision, or what went wrong */
function keepAsking(ask: () => Promise<string>) {
  const answers: string[] = []
  let going = true
  const run = async (): Promise<void> => {
    while (going) answers.push(await ask().catch((error: unknown) => `failed: ${String(error)}`))
  }
  const over = run()
  return {
    answers,
    stop: async (): Promise<string[]> => {
      going = false
      await over
      return answers
    },
  }
}

it('crosses an upgrade under load without one failure: sessions stay, new ones and those without go to the new', async () => {
  const site = await openGateway()
  await site.start()
  const browsers = Array.from({ length: 4 }, () => openBrowser(site.url))
  for (const browser of browsers) expect(await browser.revision()).toBe('one')
  const pinned = browsers.map((browser) => keepAsking(() => browser.revision()))
  const writer = async (): Promise<string> => {
    const answer = await fetch(`${site.url}/echo`, { method: 'POST', body: 'x'.repeat(5_000) })
    return `${answer.status} ${(await answer.text()).length}`
  }
  const unpinned = [
    keepAsking(async () => ((await (await fetch(`${site.url}/`)).json()) as { revision: string }).revision),
  ]
  const writers = [keepAsking(writer), keepAsking(writer)]
  // Begun on the old one, and answered by it when it is no longer current.
  const slow = fetch(`${site.url}/slow?ms=1500`).then((answer) => answer.json(), String)
  const old = await pidOf(site, 'one')
  await site.upgrade('two')
  expect(await openBrowser(site.url).revision()).toBe('two')
  await eventually(() => expect(unpinned[0]?.answers.at(-1)).toBe('two'))
  expect(await slow).toEqual({ revision: 'one' })

  const status = await site.run('status')
  expect(status.stdout).toMatch(/one +detached +\d+ +\d+ .* 4 sessions/)
  expect(status.stdout).toMatch(/two +current .* takes new sessions/)
  for (const asking of pinned) expect(new Set(await asking.stop())).toEqual(new Set(['one']))
  for (const asking of writers) expect(new Set(await asking.stop())).toEqual(new Set(['200 5000']))
  const answers = await unpinned[0]?.stop()
  expect(new Set(answers)).toEqual(new Set(['one', 'two']))
  // Never back to the old one.
  expect(answers?.indexOf('two')).toBe((answers?.lastIndexOf('one') ?? 0) + 1)

  // The last sessions end, and with them the old target.
  expect(await isRunning(old)).toBe(true)
  for (const browser of browsers) await browser.get('/log-out')
  await eventually(async () => expect(await isRunning(old)).toBe(false), { timeoutMs: 10_000 })
  await eventually(async () =>
    expect((await site.status()).targets.map(({ revision }) => revision)).toEqual(['two']),
  )
})

it('changes nothing by a revision that does not come up, and says what it printed', async () => {
  const site = await openGateway({ BOOT_TIMEOUT_MS: '2500' })
  await site.start()
  const browser = openBrowser(site.url)
  await browser.revision()
  const before = await pidOf(site, 'one')
  const asking = keepAsking(() => browser.revision())

  const fail = async (...args: string[]): Promise<string> => {
    const { code, stderr } = await site.run('upgrade', ...args)
    expect(code).toBe(1)
    expect(stderr).toContain('nothing else has changed')
    return stderr
  }
  const late = fail('--revision', 'late', '--env', 'BREAK=never-ready')
  await eventually(async () => expect((await site.status()).upgradingTo).toBe('late'))
  await expect(site.upgrade('two')).rejects.toThrow('Another upgrade, to late, is under way')
  expect(await late).toContain('not ready within 2500 ms: /readyz answered 503')
  await expect(site.upgrade('one')).rejects.toThrow('A target of revision one lives (current)')
  expect(await fail('--env', 'BREAK=exit')).toMatch(
    /by itself \(exit code 3\)[^]*cannot open the frobnicator/,
  )
  expect(await fail('--env', 'BREAK=bad-smoke')).toContain('the smoke request /livez was answered 500')
  expect(await fail('--', '/nowhere/at-all')).toContain('ENOENT')

  expect(new Set(await asking.stop())).toEqual(new Set(['one']))
  expect(await pidOf(site, 'one')).toBe(before)
  expect(site.targetPids()).toEqual([before])
})

it('loses no session by kill -9: the next gateway takes the targets over, and nothing is started', async () => {
  const site = await openGateway()
  const first = await site.start()
  const early = openBrowser(site.url)
  await early.revision()
  await site.upgrade('two')
  const late = openBrowser(site.url)
  await late.revision()
  const pids = [await pidOf(site, 'one'), await pidOf(site, 'two')]
  // One that is just being started has no future.
  const lost = site.upgrade('three', { BREAK: 'never-ready' }).catch(String)
  await eventually(() => expect(site.targetPids()).toHaveLength(3))

  first.child.kill('SIGKILL')
  await first.exit
  expect(await lost).toContain('went away')
  await site.start()
  expect(await early.revision()).toBe('one')
  expect(await late.revision()).toBe('two')
  expect(await openBrowser(site.url).revision()).toBe('two')
  expect([early.movedFrom, late.movedFrom]).toEqual([null, null])
  expect([await pidOf(site, 'one'), await pidOf(site, 'two')]).toEqual(pids)
  await eventually(() => expect(new Set(site.targetPids())).toEqual(new Set(pids)))
  // Nobody can say who else is there.
  const { kept, state } = (await site.target('one')) ?? {}
  expect(state).toBe('detached')
  expect(kept).toMatch(/who else is here is not known for \d+ s more/)
  // Taken over, it is looked after as before.
  process.kill(pids[0] ?? 0, 'SIGKILL')
  await eventually(async () => expect(await site.target('one')).toBeUndefined())
  expect(await early.revision()).toBe('two')
  expect(early.movedFrom).toBe('one')
})

it('starts a current target that dies again, its sessions with it, and moves those of a detached one', async () => {
  const site = await openGateway()
  await site.start()
  const early = openBrowser(site.url)
  await early.revision()
  const before = await pidOf(site, 'one')
  process.kill(before, 'SIGKILL')
  // Held for as long as the restart takes.
  expect(await early.revision()).toBe('one')
  expect(early.movedFrom).toBeNull()
  expect(await site.target('one')).toMatchObject({ restarts: 1, up: true, state: 'current' })
  expect(await pidOf(site, 'one')).not.toBe(before)

  // One that takes its target down is told so, and never sent again.
  const fatal = await fetch(`${site.url}/die`, { method: 'POST', body: 'x' })
  expect(fatal.status).toBe(502)
  expect(await fatal.json()).toMatchObject({ code: 'TARGET_BROKE_OFF' })
  expect(await early.revision()).toBe('one')

  await site.upgrade('two')
  process.kill(await pidOf(site, 'one'), 'SIGKILL')
  expect(await early.revision()).toBe('two')
  expect(early.movedFrom).toBe('one')
  expect(await early.revision()).toBe('two')
  expect(early.movedFrom).toBeNull()
})

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

it('drains a detached target that is too old, that nobody has used for long, or that is one too many', async () => {
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

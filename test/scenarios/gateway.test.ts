import { copyFile, rm, writeFile } from 'node:fs/promises'
import path from 'node:path'
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
  expect(await fail('--', '/nowhere/at-all')).toContain('there is no program /nowhere/at-all')
  expect(await fail('--directory', '/nowhere')).toContain('there is no directory /nowhere')

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

it('answers 503 while the current target cannot be started again, and is mended by an upgrade', async () => {
  const site = await openGateway()
  const file = path.join(site.folder, 'target.ts')
  await copyFile(standIn[1] ?? '', file)
  await site.start(['--revision', 'one', '--', process.execPath, file])
  const browser = openBrowser(site.url)
  await browser.revision()
  await rm(file)
  process.kill(await pidOf(site, 'one'), 'SIGKILL')
  await site.process.waitForLine(/does not come up; it is tried again/)

  const refused = await fetch(`${site.url}/echo`, { method: 'POST', body: 'x' })
  expect(refused.status).toBe(503)
  expect(refused.headers.get('retry-after')).toBe('2')
  expect(await refused.json()).toMatchObject({ code: 'TARGET_UNAVAILABLE' })
  expect((await fetch(`${site.url}/.gateway/readyz`)).status).toBe(503)

  // Nothing of it was sent anywhere yet, so it goes to the one that comes.
  const held = fetch(`${site.url}/echo`, { method: 'POST', body: 'held' })
  const { code } = await site.run('upgrade', '--revision', 'two', '--env', 'REVISION=two', '--', ...standIn)
  expect(code).toBe(0)
  expect(await (await held).text()).toBe('held')
  expect(await browser.revision()).toBe('two')
  expect(browser.movedFrom).toBe('one')
  expect((await site.status()).targets.map(({ revision }) => revision)).toEqual(['two'])
})

it.runIf(process.platform === 'linux')(
  'begins anew when its state is lost, and leaves no old target behind',
  async () => {
    const site = await openGateway()
    const gateway = await site.start()
    const browser = openBrowser(site.url)
    await browser.revision()
    gateway.child.kill('SIGKILL')
    await gateway.exit
    await writeFile(path.join(site.folder, 'g.json'), '{"version":1,"targ')
    const old = site.targetPids()
    await site.start()
    expect(await browser.revision()).toBe('one')
    expect(browser.movedFrom).toBe('one')
    await eventually(() => expect(site.targetPids()).not.toEqual(expect.arrayContaining(old)))
    expect(site.targetPids()).toEqual([await pidOf(site, 'one')])
  },
)

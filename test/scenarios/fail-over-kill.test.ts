import { expect, test } from 'vitest'
import { eventually } from '../support/processes.ts'
import { openTwoSites, type ShownFailOver, untilOver } from '../support/sites.ts'

test('a rehearsal opens again, and a soft fail-over is ended by the next worker when the one that runs it is killed', async () => {
  const { a, b } = await openTwoSites()
  const [rehearsed, unknown] = await Promise.all([
    a.command(['fail-over', 'rehearse', 'b', '--json']),
    b.command(['fail-over', 'soft', 'a']),
  ])
  expect(rehearsed.code).toBe(0)
  const rehearsal = JSON.parse(rehearsed.stdout.join('')) as ShownFailOver
  expect(rehearsal).toMatchObject({ phase: 'done', mode: 'rehearse', error: null })
  expect(rehearsal.log.map(({ phase }) => phase)).toContain('flushing')
  expect(await a.state()).toEqual({ role: 'leader', intake: 'open', epoch: 1 })
  expect(await b.state()).toEqual({ role: 'replica', intake: 'closed', epoch: 1 })
  // Only the site that leads is asked, and there was nothing to abort.
  expect(unknown.code).toBe(1)
  expect((await a.command(['fail-over', 'abort'])).code).toBe(1)

  // The replica answers no more from the moment at which this site refuses writes: the fail-over cannot go on.
  const command = a.command(['fail-over', 'soft', 'b'])
  await eventually(async () => expect((await a.state()).intake).not.toBe('open'), {
    timeoutMs: 20_000,
    everyMs: 5,
  })
  b.web.signalGroup('SIGSTOP')
  await a.is('leader', 'closed')
  await a.worker.kill()
  // Nobody runs it, and it stays where it is.
  expect(await a.state()).toMatchObject({ role: 'leader', intake: 'closed' })
  const next = a.startWorker()
  b.web.signalGroup('SIGCONT')
  const { code, stdout } = await command
  expect(stdout.join('\n')).toContain('writes were refused here for')
  expect(code).toBe(0)
  expect(await untilOver(a)).toMatchObject({ phase: 'done', error: null })
  expect(await a.state()).toEqual({ role: 'replica', intake: 'closed', epoch: 2 })
  expect(await b.state()).toEqual({ role: 'leader', intake: 'open', epoch: 2 })
  await next.kill()
})

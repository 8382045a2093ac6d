import { randomUUID } from 'node:crypto'
import { expect, it } from 'vitest'
import { processesWith } from '../../src/runtime/gateway/process-identity.ts'
import { spawnBaton } from '../support/processes.ts'

it('the demo keeps every promise, shows the way to the dashboard, and leaves nothing running', async () => {
  const mark = randomUUID()
  const demo = spawnBaton(['demo'], { DEMO_MARK: mark })
  const address = (await demo.waitForLine(/^dashboard/)).split(/\s+/)[1] ?? ''
  expect((await fetch(address)).status).toBe(200)
  expect(await demo.exit).toEqual({ code: 0, signal: null })
  const said = demo.stdout.join('\n')
  expect(said).not.toContain('BROKEN')
  const [, kept, all] = /^(\d+) of (\d+) promises kept$/m.exec(said) ?? []
  expect(kept).toBe(all)
  expect(said.match(/✓/g)).toHaveLength(Number(all))
  expect(() => process.kill(-demo.pid, 0)).toThrow('ESRCH')
  // What is behind the gateway is in no group of the demo's, but has its environment.
  expect(processesWith('DEMO_MARK').filter(({ value }) => value === mark)).toEqual([])
})

it('a demo that is stopped before its end has kept nothing', async () => {
  const demo = spawnBaton(['demo'])
  await demo.waitForLine(/kill -9/, 60_000)
  demo.signal('SIGTERM')
  expect(await demo.exit).toEqual({ code: 1, signal: null })
  expect(demo.stdout.join('\n')).toContain('Stopped before its end')
  expect(() => process.kill(-demo.pid, 0)).toThrow('ESRCH')
})

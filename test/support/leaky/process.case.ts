import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { expect, it } from 'vitest'

it('leaves a process running', async () => {
  const child = spawn('sleep', [process.env['PLANTED_SLEEP'] ?? '77'], { stdio: 'ignore' })
  await once(child, 'spawn')
  expect(child.exitCode).toBeNull()
})

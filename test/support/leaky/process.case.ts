import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { it } from 'vitest'

it('leaves a process running', async () => {
  await once(spawn('sleep', ['77'], { stdio: 'ignore' }), 'spawn')
})

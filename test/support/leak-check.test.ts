import { execFile } from 'node:child_process'
import { expect, inject, it } from 'vitest'
import { processTable, projectRoot } from './processes.ts'

/** Seconds that no other run on this machine sleeps. */
const planted = `77.${process.pid}`

/** Vitest of its own over the planted leaks, on the servers of this run. */
const runPlanted = (): Promise<{ code: number; output: string }> =>
  new Promise((resolve) => {
    const args = ['node_modules/vitest/vitest.mjs', 'run', '--config', 'test/support/leaky/vitest.config.ts']
    const env = {
      ...process.env,
      NO_COLOR: '1',
      LEAK_GRACE_MS: '1000',
      PLANTED_SLEEP: planted,
      DATABASE_URL: inject('postgresUrl'),
      REDIS_URL: inject('redisUrl'),
    }
    execFile(process.execPath, args, { cwd: projectRoot, env }, (error, stdout, stderr) =>
      resolve({ code: Number(error?.code ?? 0), output: stdout + stderr }),
    )
  })

it('a file that leaves a connection or a process behind fails, and one that does not passes', async () => {
  const { code, output } = await runPlanted()
  expect(code).toBe(1)
  expect(output).toMatch(/FAIL .*connection\.case\.ts[\s\S]*connections left open:\s+planted leak \(idle\)/)
  expect(output).not.toContain('closed in time (')
  expect(output).toMatch(/FAIL .*process\.case\.ts/)
  expect(output).toContain(`process left running: sleep ${planted}`)
  expect(output).not.toMatch(/FAIL .*clean\.case\.ts/)
  expect((await processTable()).filter(({ command }) => command === `sleep ${planted}`)).toEqual([])
}, 60_000)

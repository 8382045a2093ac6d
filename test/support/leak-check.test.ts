import { execFile } from 'node:child_process'
import { expect, inject, it } from 'vitest'
import { processTable, projectRoot } from './processes.ts'

/** Vitest of its own over the planted leaks, on the servers of this run. */
const runPlanted = (): Promise<{ code: number; output: string }> =>
  new Promise((resolve) => {
    const args = ['node_modules/vitest/vitest.mjs', 'run', '--config', 'test/support/leaky/vitest.config.ts']
    const env = {
      ...process.env,
      NO_COLOR: '1',
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
  expect(output).toMatch(/FAIL .*process\.case\.ts[\s\S]*process left running: sleep 77/)
  expect(output).not.toMatch(/FAIL .*clean\.case\.ts/)
  expect((await processTable()).filter(({ command }) => command === 'sleep 77')).toEqual([])
}, 60_000)

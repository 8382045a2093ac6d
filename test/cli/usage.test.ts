import { afterEach, expect, it, vi } from 'vitest'
import { runCli } from '../../src/cli/cli.ts'
import { type Ran, runBaton } from './run-baton.ts'

afterEach(() => {
  vi.restoreAllMocks()
  vi.unstubAllEnvs()
})

/** In this process: a command line that is refused, or explained, opens nothing. */
async function run(args: string[]): Promise<Ran> {
  // A database that cannot be had: whoever looks for it ends with another code.
  vi.stubEnv('DATABASE_URL', 'postgres://nobody@127.0.0.1:1/x')
  const said = { stdout: '', stderr: '' }
  for (const stream of ['stdout', 'stderr'] as const) {
    vi.spyOn(process[stream], 'write').mockImplementation((text) => {
      said[stream] += String(text)
      return true
    })
  }
  return { code: await runCli(args), ...said }
}

it.each([
  [['--help']],
  [['help']],
  [['help', 'jobs']],
  [['dev', '--help']],
  [['demo', '--help']],
  [['web', '--help']],
  [['worker', '--help']],
  [['release', '--help']],
  [['gateway', '--help']],
  [['gateway', 'upgrade', '--help']],
  [['doctor', '--help']],
  [['jobs', '--help']],
  [['jobs', 'enqueue', '--help']],
  [['keys', 'create', '--help']],
])('%j explains and ends with 0', async (args) => {
  const { code, stdout, stderr } = await run(args)
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(stdout).toMatch(/^Usage: baton/)
})

it.each([
  ['an unknown verb', ['nosuch'], /unknown command 'nosuch'/],
  ['an unknown verb that asks for help', ['nosuch', '--help'], /unknown command 'nosuch'/],
  ['a name that every object has', ['constructor'], /unknown command 'constructor'/],
  ['an unknown option', ['dev', '--nosuch'], /unknown option '--nosuch'/],
  ['too much', ['release', 'now'], /too many arguments/],
  ['no verb', [], /Usage: baton/],
  ['a state that does not exist', ['jobs', 'list', '--state', 'foo'], /Allowed choices are waiting/],
  ['a limit that is no number', ['jobs', 'list', '--limit', 'abc'], /whole number from 1 to/],
  ['a limit of nothing', ['jobs', 'list', '--limit', '0'], /whole number from 1 to/],
  ['a delay that is no number', ['jobs', 'enqueue', 'x', '--delay', '1.5'], /whole number from 0 to/],
  ['a priority beyond all', ['jobs', 'enqueue', 'x', '--priority', '2097152'], /from 0 to 2097151/],
  ['a delay for lines', ['jobs', 'enqueue', '--delay', '5'], /are for one job/],
  ['no job to show', ['jobs', 'show'], /missing required argument 'id'/],
  ['nothing to retry', ['jobs', 'retry'], /either the id of a job or --failed/],
  ['one job and all', ['jobs', 'retry', 'x', '--failed'], /either the id of a job or --failed/],
  ['a filter without --failed', ['jobs', 'retry', 'x', '--name', 'y'], /need --failed/],
  ['a slip that would be started', ['gateway', 'stauts'], /unknown command 'stauts'/],
  ['a command of an upgrade without dashes', ['gateway', 'upgrade', 'node'], /stands behind --/],
  ['a revision of no name', ['gateway', 'upgrade', '--revision', 'a b'], /letters, digits/],
  ['no variable', ['gateway', 'upgrade', '--env', 'x'], /NAME=VALUE/],
  ['nothing to extend by', ['gateway', 'extend', 'r1'], /either --minutes or --ms/],
  ['a key without a name', ['keys', 'create', '--role', 'viewer'], /required option '--name <name>'/],
  ['a key with an empty name', ['keys', 'create', '--role', 'viewer', '--name', ' '], /1 to 100 characters/],
])('%s is an error of usage, and ends with 2 before anything is opened', async (_what, args, message) => {
  const { code, stderr } = await run(args)
  expect(stderr).toMatch(message)
  expect(code).toBe(2)
})

it.each([[['web']], [['dev']], [['jobs', 'list']]])(
  '%j names every fault of the environment at once and ends with 78',
  async (args) => {
    const env = { NODE_ENV: 'production', PORT: 'abc', LOG_LEVEL: 'loud', REDIS_URL: 'http://x' }
    const { code, stderr } = await runBaton(args, { env })
    expect(code).toBe(78)
    for (const fault of ['DATABASE_URL', 'BATON_SECRET', 'PORT', 'LOG_LEVEL', 'REDIS_URL']) {
      expect(stderr).toContain(`  ${fault} must`)
    }
    expect(stderr).not.toContain('    at ')
  },
)

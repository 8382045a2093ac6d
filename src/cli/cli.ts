import { readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { BatonError, codeOf, messageOf } from '../core/errors.ts'

/** What a verb is given to speak with, and where it leaves its exit code. */
export interface Cli {
  /** To standard output: what was asked for. */
  print(line: string): void
  /** To standard error: everything else. */
  complain(line: string): void
  /** 0 done, 1 failed, 2 usage, 75 stopped but something was forced, 78 configuration. */
  exitCode: number
}

/** Adds a verb. What it needs besides is loaded in its action. */
export type RegisterVerb = (program: Command, cli: Cli) => void

/** In the order of `--help`. A command line that names one loads no other: every start of a child passes here. */
const verbs: Record<string, () => Promise<RegisterVerb>> = {
  dev: async () => (await import('./commands/dev.ts')).registerDev,
  demo: async () => (await import('./commands/demo.ts')).registerDemo,
  web: async () => (await import('./commands/web.ts')).registerWeb,
  worker: async () => (await import('./commands/worker.ts')).registerWorker,
  gateway: async () => (await import('./commands/gateway.ts')).registerGateway,
  'worker-child': async () => (await import('./commands/worker-child.ts')).registerWorkerChild,
  release: async () => (await import('./commands/release.ts')).registerRelease,
  doctor: async () => (await import('./commands/doctor.ts')).registerDoctor,
  keys: async () => (await import('./commands/keys.ts')).registerKeys,
  jobs: async () => (await import('./commands/jobs.ts')).registerJobs,
  push: async () => (await import('./commands/push.ts')).registerPush,
  sync: async () => (await import('./commands/sync.ts')).registerSync,
  'fail-over': async () => (await import('./commands/fail-over.ts')).registerFailOver,
  bodies: async () => (await import('./commands/bodies.ts')).registerBodies,
  state: async () => (await import('./commands/state.ts')).registerState,
}

const configurationCodes = new Set([
  'CONFIG_INVALID',
  'CONFIG_DATABASE_MISSING',
  'JOBS_UNUSABLE',
  'JOB_DUPLICATE_NAME',
  'JOB_DEFINITION_INVALID',
  'BODY_STORE_INVALID',
])

/** Runs one command line. @returns the exit code; processes that are stopped by signals end by themselves */
export async function runCli(argv: string[]): Promise<number> {
  const cli: Cli = {
    print: (line) => void process.stdout.write(`${line}\n`),
    complain: (line) => void process.stderr.write(`${line}\n`),
    exitCode: 0,
  }
  const program = new Command('baton')
    .description('Background jobs and push delivery: nothing lost, nothing doubled without need.')
    .version(readVersion())
    .exitOverride()
    .showHelpAfterError('(baton --help shows what there is)')
  try {
    const [verb] = argv
    for (const load of loadersFor(verb)) (await load())(program, cli)
    refuseUnknown(program, verb)
    await program.parseAsync(argv, { from: 'user' })
    return cli.exitCode
  } catch (error) {
    return explain(error, cli)
  }
}

const isVerb = (verb: string): boolean => Object.hasOwn(verbs, verb)

function loadersFor(verb: string | undefined): (() => Promise<RegisterVerb>)[] {
  const named = verb !== undefined && isVerb(verb) ? verbs[verb] : undefined
  return named ? [named] : Object.values(verbs)
}

/** Commander would answer an unknown verb beside `--help` with the help, and success. */
function refuseUnknown(program: Command, verb: string | undefined): void {
  if (verb === undefined || verb.startsWith('-') || verb === 'help' || isVerb(verb)) return
  program.error(`error: unknown command '${verb}'`)
}

/** Says what went wrong in words for people. @returns the exit code for it */
function explain(error: unknown, cli: Cli): number {
  // Commander has said it already.
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2
  if (error instanceof BatonError) {
    cli.complain(`baton: ${error.message} [${error.code}]`)
    return configurationCodes.has(error.code) ? 78 : 1
  }
  const code = codeOf(error)
  cli.complain(`baton: ${messageOf(error)}${code ? ` [${code}]` : ''}`)
  // Not one of ours, so a fault of the program or of the machine: whoever mends it needs to know where.
  if (error instanceof Error && error.stack) cli.complain(error.stack)
  return 1
}

export function readVersion(): string {
  const file = new URL('../../package.json', import.meta.url)
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version
}

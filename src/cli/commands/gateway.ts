import path from 'node:path'
import type { Command } from 'commander'
import { InvalidArgumentError } from 'commander'
import { createSystemClock } from '../../core/clock.ts'
import { loadConfig } from '../../platform/config/config.ts'
import { endOnUncaught, exitProcess, handleSignals } from '../../platform/processes/signals.ts'
import { type RevisionRequest, revisionName } from '../../runtime/gateway/control.ts'
import type { TargetView } from '../../runtime/gateway/status.ts'
import { wholeNumber } from '../arguments.ts'
import type { Cli, RegisterVerb } from '../cli.ts'
import type { ComposedGateway } from '../compose/gateway.ts'
import { createGatewayClient, type GatewayClient } from '../compose/gateway-client.ts'
import { statusLines } from '../gateway/status-lines.ts'

export const registerGateway: RegisterVerb = (program, cli) => {
  // Inherited: else `gateway` would take the options of `upgrade` for its own, and those behind -- too.
  program.enablePositionalOptions()
  const gateway = program
    .command('gateway')
    .description('Serves a web command on PORT and keeps each session on the revision on which it began.')
    .usage('[options] [-- COMMAND ARGS…]\n       baton gateway status|upgrade|extend|end …')
    .argument('[command...]', 'what is started, behind --; baton web unless given')
  revisionOptions(gateway).action((command: string[], options: RevisionOptions) => {
    // A slip in the name of a sub-command would be started otherwise.
    if (command.length > 0 && !isBehindDashes(program, command)) {
      gateway.error(`error: unknown command '${command[0]}'; a command to be started stands behind --`)
    }
    return runGateway(requestOf(command, options), cli)
  })
  registerStatus(gateway, cli)
  registerUpgrade(gateway, cli, program)
  registerExtend(gateway, cli)
  registerEnd(gateway, cli)
}

interface RevisionOptions {
  revision?: string
  directory?: string
  env?: string[]
}

const revisionOptions = (command: Command): Command =>
  command
    .option('--revision <name>', 'its name; r1, r2, … unless given', readRevision)
    .option('--directory <path>', 'where it is started; this directory, or that of the current revision')
    .option('--env <name=value>', 'added to its environment; may be repeated', readVariable)

function readRevision(text: string): string {
  if (revisionName.test(text)) return text
  throw new InvalidArgumentError(
    'It must have up to 64 letters, digits and . _ + -, a letter or digit first.',
  )
}

function readVariable(text: string, before: string[] = []): string[] {
  if (/^[A-Za-z_]\w*=/.test(text)) return [...before, text]
  throw new InvalidArgumentError('It must be NAME=VALUE.')
}

function isBehindDashes(program: Command, command: string[]): boolean {
  const { rawArgs } = program as Command & { rawArgs: string[] }
  const dashes = rawArgs.indexOf('--')
  return dashes >= 0 && rawArgs.length - dashes - 1 === command.length
}

const requestOf = (command: string[], { revision, directory, env }: RevisionOptions): RevisionRequest => ({
  ...(command.length > 0 ? { command } : {}),
  ...(revision === undefined ? {} : { revision }),
  ...(directory === undefined ? {} : { directory: path.resolve(directory) }),
  ...(env ? { environment: Object.fromEntries(env.map(splitVariable)) } : {}),
})

function splitVariable(text: string): [string, string] {
  const at = text.indexOf('=')
  return [text.slice(0, at), text.slice(at + 1)]
}

/** Given to the event loop on top of the deadline, so that the orderly end is the one that ends us, ms. */
const lastMs = 200

async function runGateway(first: RevisionRequest, cli: Cli): Promise<void> {
  const config = loadConfig()
  let gateway: ComposedGateway | undefined
  let stopping = false
  const nothing = (signal: string) => (): void => gateway?.log.info(`${signal} changes nothing`)
  handleSignals(
    { clock: createSystemClock(), terminal: process.stdin.isTTY || process.stdout.isTTY },
    {
      stop: (signal) => {
        stopping = true
        // Nothing is under way before there is a gateway.
        if (gateway) void stop(gateway, { signal, limitMs: config.shutdownMs })
        else exitProcess(0)
      },
      fast: () => cut(gateway),
      roll: nothing('HUP'),
      quiet: nothing('TSTP or USR2'),
      report: () => gateway && statusLines(gateway.status()).forEach(cli.print),
      ignored: (signal) => cli.complain(`baton: stopping already; ${signal} changes nothing`),
    },
  )
  const { composeGateway } = await import('../compose/gateway.ts')
  gateway = await composeGateway(config, first)
  const { log } = gateway
  endOnUncaught((error) => log.fatal({ err: error }, 'the gateway has a fault and ends; its targets go on'))
  try {
    const { url } = await gateway.start()
    log.info({ url }, 'gateway takes requests')
  } catch (error) {
    // The stop has ended what was just being started, and ends the process.
    if (!stopping) throw error
  }
  // Ends by its signals, with `exitProcess`.
  await new Promise<never>(() => undefined)
}

async function stop(
  gateway: ComposedGateway,
  { signal, limitMs }: { signal: string; limitMs: number },
): Promise<void> {
  gateway.log.info({ signal }, 'gateway stops: no longer ready, requests under way are finished')
  // Whatever hangs, the platform must not have to kill us.
  setTimeout(() => cut(gateway), limitMs + lastMs).unref()
  const clean = await gateway.stop()
  gateway.log.info({ clean }, 'gateway has stopped')
  exitProcess(clean ? 0 : 75)
}

/** The targets do not end with this process by themselves. */
function cut(gateway: ComposedGateway | undefined): void {
  gateway?.kill()
  exitProcess(75)
}

/** Loads the configuration for the socket, and nothing else. */
const client = (): GatewayClient => createGatewayClient(loadConfig().gatewaySocket)

function registerStatus(gateway: Command, cli: Cli): void {
  gateway
    .command('status')
    .description('Lists the targets of the gateway that runs, and why each is kept.')
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const status = await client().status()
      if (options.json) cli.print(JSON.stringify(status, null, 2))
      else statusLines(status).forEach(cli.print)
    })
}

function registerUpgrade(gateway: Command, cli: Cli, program: Command): void {
  const upgrade = gateway
    .command('upgrade')
    .description('Starts another revision; when it is ready, new sessions go there. Else nothing changes.')
    .usage('[options] [-- COMMAND ARGS…]')
    .argument('[command...]', 'what is started, behind --; as now unless given')
    .option('--json', 'print JSON')
  revisionOptions(upgrade).action(
    async (command: string[], options: RevisionOptions & { json?: boolean }) => {
      if (command.length > 0 && !isBehindDashes(program, command)) {
        upgrade.error(`error: unknown argument '${command[0]}'; a command to be started stands behind --`)
      }
      const view = await client().upgrade(requestOf(command, options))
      tell(cli, view, options, `${view.revision} is current (pid ${view.pid})`)
    },
  )
}

/** A month. */
const longestMinutes = 43_200

function registerExtend(gateway: Command, cli: Cli): void {
  const extend = gateway
    .command('extend <revision>')
    .description('Lets a detached target stay longer.')
    .option('--minutes <n>', 'by how long', wholeNumber(1, longestMinutes))
    .option('--ms <n>', 'the same in milliseconds', wholeNumber(1, longestMinutes * 60_000))
    .option('--json', 'print JSON')
  extend.action(async (revision: string, options: { minutes?: number; ms?: number; json?: boolean }) => {
    const { minutes, ms } = options
    if ((minutes === undefined) === (ms === undefined)) {
      extend.error('error: by how long? Give either --minutes or --ms')
    }
    const view = await client().extend(revision, ms ?? (minutes ?? 0) * 60_000)
    tell(cli, view, options, `${view.revision} may stay until ${view.tooOldAt}`)
  })
}

function registerEnd(gateway: Command, cli: Cli): void {
  gateway
    .command('end <revision>')
    .description('Drains a detached target now; its sessions move to the current one.')
    .option('--json', 'print JSON')
    .action(async (revision: string, options: { json?: boolean }) => {
      const view = await client().end(revision)
      tell(cli, view, options, `${view.revision} drains`)
    })
}

function tell(cli: Cli, view: TargetView, { json }: { json?: boolean }, line: string): void {
  cli.print(json ? JSON.stringify(view, null, 2) : line)
}

import type { Command } from 'commander'
import { toIso } from '../../core/clock.ts'
import { codeOf } from '../../core/errors.ts'
import { documentOf, type FailOverDocument, viewDocumentOf } from '../../domain/sync/fail-over/document.ts'
import type { FailOvers } from '../../domain/sync/fail-over/fail-overs.ts'
import type { FailOver } from '../../domain/sync/fail-over/rows.ts'
import { loadConfig } from '../../platform/config/config.ts'
import { actorAtTerminal } from '../actor.ts'
import type { Cli, RegisterVerb } from '../cli.ts'
import { type FailOverTools, withFailOvers } from '../compose/fail-over-command.ts'

interface Output {
  json?: boolean
}

export const registerFailOver: RegisterVerb = (program, cli) => {
  const verb = program
    .command('fail-over')
    .description('Lets another site take over: rehearsed, softly, or by force when the leader is gone.')
  registerSoft(verb, cli, {
    mode: 'rehearse',
    description:
      'Asked of the leader: goes as far as the replica has everything, tells how long it took, and opens again.',
  })
  registerSoft(verb, cli, {
    mode: 'soft',
    description: 'Asked of the leader: closes here, sends the rest, opens there. Nothing is lost.',
  })
  registerHard(verb, cli)
  registerStatus(verb, cli)
  registerAbort(verb, cli)
}

const open = <T>(work: (tools: FailOverTools) => Promise<T>): Promise<T> => withFailOvers(loadConfig(), work)

function registerSoft(
  verb: Command,
  cli: Cli,
  { mode, description }: { mode: 'rehearse' | 'soft'; description: string },
): void {
  verb
    .command(`${mode} <site>`)
    .description(description)
    .option('--json', 'print JSON at its end')
    .action((to: string, { json }: Output) =>
      open(async (tools) => {
        const { id } = await tools.failOvers.begin({ mode, to, actor: actorAtTerminal() })
        cli.complain(
          `fail-over ${id}: to give it up, \`baton fail-over abort\`. It goes on without this command.`,
        )
        end(cli, documentOf(await follow(cli, tools, id)), json)
      }),
    )
}

function registerHard(verb: Command, cli: Cli): void {
  verb
    .command('hard')
    .description(
      'Asked of a replica when the leader is gone: opens it at once. What it did not have yet may be lost.',
    )
    .option('--yes-leader-is-gone <leader>', 'the name of the leader that is given up')
    .option('--json', 'print JSON')
    .action(({ yesLeaderIsGone: confirm, json }: Output & { yesLeaderIsGone?: string }) =>
      open(async (tools) => {
        for (const line of await warnings(tools)) cli.complain(line)
        try {
          const wish = { mode: 'hard' as const, to: tools.name, confirm, actor: actorAtTerminal() }
          end(cli, documentOf(await tools.failOvers.begin(wish)), json)
        } catch (error) {
          // Nothing was done: the command line lacks a word.
          if (codeOf(error) !== 'FAIL_OVER_UNCONFIRMED') throw error
          const { leader } = (await tools.failOvers.view()).site
          cli.complain(
            `baton: nothing was done. If that is what you want: baton fail-over hard --yes-leader-is-gone ${leader ?? 'NAME'}`,
          )
          cli.exitCode = 2
        }
      }),
    )
}

/** What a person has to know before the leader is given up. */
async function* warningLines({ failOvers, heardAt }: FailOverTools): AsyncGenerator<string> {
  const { site } = await failOvers.view()
  if (site.role !== 'replica') return
  const at = await heardAt()
  yield `${site.name} follows ${site.leader} (epoch ${site.epoch}). It last wrote something that ${site.leader} sent at ${at ? toIso(at.getTime()) : 'no time that is known'}.`
  yield `What ${site.leader} took in after that, or had not sent yet, may be lost. It is kept there: when ${site.leader} comes back`
  yield 'it closes itself and hands it over, and what was changed or deleted here meanwhile is not overwritten.'
  yield `Be sure that no client writes to ${site.leader} any more: that cannot be seen from here.`
}

async function warnings(tools: FailOverTools): Promise<string[]> {
  const lines: string[] = []
  for await (const line of warningLines(tools)) lines.push(line)
  return lines
}

function registerStatus(verb: Command, cli: Cli): void {
  verb
    .command('status')
    .description('What this site is, and how the fail-over under way or the last one went.')
    .option('--json', 'print JSON')
    .action(({ json }: Output) =>
      open(async ({ failOvers }) => {
        const view = viewDocumentOf(await failOvers.view())
        if (json) return cli.print(JSON.stringify(view, null, 2))
        const { name, role, intake, epoch, leader } = view.site
        cli.print(`${name}: ${role}${leader === null ? '' : ` of ${leader}`}, ${intake}, epoch ${epoch}`)
        if (!view.failOver) return cli.print('no fail-over yet')
        for (const line of linesOf(view.failOver)) cli.print(line)
      }),
    )
}

function registerAbort(verb: Command, cli: Cli): void {
  verb
    .command('abort')
    .description('Gives up the fail-over that is under way; possible until the other site was asked to open.')
    .option('--json', 'print JSON')
    .action(({ json }: Output) =>
      open(async (tools) => {
        const { id } = await tools.failOvers.abort({ actor: actorAtTerminal() })
        const over = documentOf(await follow(cli, tools, id))
        if (json) cli.print(JSON.stringify(over, null, 2))
        else for (const line of linesOf(over)) cli.print(line)
      }),
    )
}

const lookMs = 200
/** A worker that holds the lease begins at once. */
const nobodyMs = 10_000

/** A line a phase, until it is over. */
async function follow(cli: Cli, { failOvers, clock }: FailOverTools, id: string): Promise<FailOver> {
  let told = 0
  let isWarned = false
  for (;;) {
    const found = await find(failOvers, id)
    const { log } = documentOf(found)
    for (const { phase, at } of log.slice(told)) cli.complain(`${at}  ${phase}`)
    told = log.length
    if (found.finishedAt) return found
    if (!isWarned && found.phase === 'preflight' && found.inPhaseMs > nobodyMs) {
      isWarned = true
      cli.complain('Nobody brings it on. Does `baton worker` run on this site?')
    }
    await clock.sleep(lookMs)
  }
}

async function find(failOvers: FailOvers, id: string): Promise<FailOver> {
  const found = (await failOvers.view()).history.find((each) => each.id === id)
  if (!found) throw new Error(`the fail-over ${id} is gone`)
  return found
}

function end(cli: Cli, over: FailOverDocument, json: boolean | undefined): void {
  if (json) cli.print(JSON.stringify(over, null, 2))
  else for (const line of linesOf(over)) cli.print(line)
  if (over.phase !== 'done') cli.exitCode = 1
}

function* linesOf(over: FailOverDocument): Generator<string> {
  const { mode, to, phase, error, report, refusedMs, log, actor, createdAt } = over
  yield `${mode} to ${to}, begun at ${createdAt} by ${actor}: ${phase}`
  for (const { phase: each, ms } of log) if (ms !== undefined) yield `  ${each.padEnd(10)} ${seconds(ms)}`
  if (refusedMs !== undefined) yield `  writes were refused here for ${seconds(refusedMs)}`
  if (error) yield `  ${error.message} [${error.code}]`
  if (report) yield `  report: ${JSON.stringify(report)}`
}

const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)} s`

import { createWriteStream } from 'node:fs'
import { open as openHandle } from 'node:fs/promises'
import type { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import type { Command } from 'commander'
import { keepReferenced } from '../../../jobs/bodies.ts'
import { messageOf } from '../../core/errors.ts'
import type { BodiesStatus, Repaired } from '../../domain/bodies/upkeep.ts'
import { loadConfig } from '../../platform/config/config.ts'
import { INPUT_INVALID } from '../../platform/queues/errors.ts'
import type { Cli, RegisterVerb } from '../cli.ts'
import { type BodiesTools, withBodies } from '../compose/bodies.ts'

interface Output {
  json?: boolean
}

export const registerBodies: RegisterVerb = (program, cli) => {
  const bodies = program
    .command('bodies')
    .description('Puts, gets and looks after bodies: large data, two copies each.')
  registerStatus(bodies, cli)
  registerPut(bodies, cli)
  registerGet(bodies, cli)
  registerScrub(bodies, cli)
  registerSweep(bodies, cli)
  registerAdopt(bodies, cli)
}

const open = <T>(work: (tools: BodiesTools) => Promise<T>): Promise<T> => withBodies(loadConfig(), work)

function registerStatus(bodies: Command, cli: Cli): void {
  bodies
    .command('status')
    .description('Tells how the stores and the copies are; exit code 1 when a person has to look.')
    .option('--json', 'print JSON')
    .action(({ json }: Output) =>
      open(async ({ bodies: { upkeep } }) => {
        const status = await upkeep.status()
        for (const line of json ? [JSON.stringify(status, null, 2)] : linesOf(status)) cli.print(line)
        const { repairs, scrub, stores } = status
        const trouble =
          repairs.lost > 0 || scrub.canary === 'overdue' || stores.some(({ state }) => state !== 'ok')
        if (trouble) cli.exitCode = 1
      }),
    )
}

function* linesOf({ bodies, bytes, condemned, stores, repairs, scrub }: BodiesStatus): Generator<string> {
  yield `${bodies} bodies, ${bytes} bytes, ${condemned} condemned by the sweep`
  for (const { name, copies, state, draining } of stores) {
    yield `store    ${name}  ${copies} copies  ${state}${draining ? ', draining' : ''}`
  }
  yield `repairs  ${repairs.waiting} waiting, the oldest for ${Math.round(repairs.oldestMs / 1_000)} s; ${repairs.lost} bodies lost`
  yield `scrub    ${scrub.checked} checked in ${scrub.passes} passes, last at ${scrub.ranAt ?? 'never'}; ${scrub.neverChecked} never checked`
  yield `         ${scrub.bad} bad, ${scrub.missing} missing, ${scrub.lost} lost; planted bad copy: ${scrub.canary}`
}

function registerPut(bodies: Command, cli: Cli): void {
  bodies
    .command('put [file]')
    .description('Puts a file, or standard input; prints its id.')
    .option('--one-copy', 'be content with one copy for now, when a store is away')
    .option('--json', 'print JSON')
    .action((file: string | undefined, { oneCopy, json }: Output & { oneCopy?: boolean }) =>
      open(async ({ bodies: { put } }) => {
        const source = file === undefined || file === '-' ? process.stdin : await openFile(file)
        const result = await put(source, oneCopy ? { minCopies: 1 } : {})
        cli.print(json ? JSON.stringify(result) : result.id)
      }),
    )
}

/** @throws INPUT_INVALID */
async function openFile(path: string): Promise<Readable> {
  try {
    return (await openHandle(path)).createReadStream()
  } catch (error) {
    throw INPUT_INVALID({ summary: `${path} cannot be read: ${messageOf(error)}` }, { cause: error })
  }
}

function registerGet(bodies: Command, cli: Cli): void {
  bodies
    .command('get <id>')
    .description('Writes a body to a file, or to standard output. Only verified bytes are written.')
    .option('-o, --output <file>', 'where to write it')
    .option('--json', 'print what was written, as JSON; needs --output')
    .action((id: string, { output, json }: Output & { output?: string }) =>
      open(async ({ bodies: { get } }) => {
        const { stream, size } = await get(id)
        if (output === undefined) return pipeline(stream, process.stdout, { end: false })
        await pipeline(stream, createWriteStream(output))
        if (json) cli.print(JSON.stringify({ id, size, output }))
      }),
    )
}

function registerScrub(bodies: Command, cli: Cli): void {
  bodies
    .command('scrub [id]')
    .description(
      'Reads every copy of a portion of the bodies, or of one, and mends what is bad. Exit code 1 if one is lost.',
    )
    .option(
      '--limit <n>',
      'how many bodies; unless said, what one run an hour needs to read all within 30 days',
    )
    .option('--bytes-per-second <n>', 'read at most so fast', '20971520')
    .option('--json', 'print JSON')
    .action((id: string | undefined, options: Output & { limit?: string; bytesPerSecond: string }) =>
      open(async ({ bodies }) => {
        const { limit, bytesPerSecond, json } = options
        const portion = bodies.upkeep.scrub({
          bytesPerSecond: Number(bytesPerSecond),
          ...(limit !== undefined && { limit: Number(limit) }),
        })
        const one = async function* (only: string): AsyncGenerator<Repaired> {
          const { size } = await bodies.stat(only)
          yield { id: only, size, report: await bodies.repair(only) }
        }
        const found = await scrub(id === undefined ? portion : one(id), json ? undefined : cli)
        cli.print(
          json
            ? JSON.stringify(found)
            : `${found.checked} checked, ${found.bad} bad, ${found.missing} missing, ${found.lost} lost`,
        )
        if (found.lost > 0) cli.exitCode = 1
      }),
    )
}

async function scrub(items: AsyncIterable<Repaired>, cli: Cli | undefined) {
  const found = { checked: 0, bytes: 0, bad: 0, missing: 0, lost: 0 }
  for await (const { id, size, report } of items) {
    found.checked++
    found.bytes += size
    found.bad += report.bad.length
    found.missing += report.missing.length
    found.lost += report.lost ? 1 : 0
    const { bad, missing, lost, written, failed } = report
    if (lost) cli?.print(`${id}  LOST: no sound copy is left`)
    else if (bad.length + missing.length > 0) {
      cli?.print(
        `${id}  bad: ${bad.join(', ') || '-'}  missing: ${missing.join(', ') || '-'}  written anew: ${written.join(', ') || '-'}`,
      )
    }
    for (const reason of failed) cli?.print(`${id}  ${reason}`)
    if (process.stderr.isTTY && found.checked % 10 === 0) process.stderr.write(`\r${found.checked} checked`)
  }
  return found
}

function registerSweep(bodies: Command, cli: Cli): void {
  bodies
    .command('sweep')
    .description(
      'Removes what nothing refers to, in two steps a day apart; the job bodies-sweep does it each night.',
    )
    .option('--force', 'go on although the plan is suspiciously large')
    .option('--json', 'print JSON')
    .action(({ force = false, json }: Output & { force?: boolean }) =>
      open(async ({ bodies: { upkeep }, postgres }) => {
        const report = await upkeep.sweep({
          force,
          keepReferenced: (candidates) => keepReferenced(postgres, candidates),
        })
        if (json) cli.print(JSON.stringify(report))
        else {
          const orphans = Object.values(report.orphans).reduce((sum, count) => sum + count, 0)
          cli.print(
            `${report.condemned} condemned, ${report.removed} removed, ${orphans} orphans and ${report.staged} unfinished files removed`,
          )
          for (const line of [...report.tripped, ...report.failed]) cli.complain(line)
        }
        if (report.tripped.length + report.failed.length > 0) cli.exitCode = 1
      }),
    )
}

function registerAdopt(bodies: Command, cli: Cli): void {
  bodies
    .command('adopt <store>')
    .description(
      'Says that a store is right although its place is another one than before: a disk that was replaced.',
    )
    .option('--json', 'print JSON')
    .action((store: string, { json }: Output) =>
      open(async ({ bodies: { upkeep } }) => {
        const result = await upkeep.adopt(store)
        cli.print(
          json ? JSON.stringify(result) : `${result.wished} bodies will be copied to it by the repairs`,
        )
      }),
    )
}

import type { Command } from 'commander'
import type { Replicas } from '../../domain/sync/replicas.ts'
import type { ReplicaView, SyncView } from '../../domain/sync/sync-view.ts'
import { createAuditLog } from '../../platform/access/audit-log.ts'
import { loadConfig } from '../../platform/config/config.ts'
import { INPUT_INVALID } from '../../platform/queues/errors.ts'
import { urlOf } from '../../runtime/web/routes/replicas.ts'
import { actorAtTerminal } from '../actor.ts'
import type { Cli, RegisterVerb } from '../cli.ts'
import { withReplicas } from '../compose/sync.ts'
import { registerTrash } from './sync-trash.ts'

interface Output {
  json?: boolean
}

export const registerSync: RegisterVerb = (program, cli) => {
  const sync = program.command('sync').description('Shows and steers the replication of this site to others.')
  registerStatus(sync, cli)
  registerAdd(sync, cli)
  registerApprove(sync, cli)
  registerAct(sync, cli, 'verify', 'Asks for a verification of all objects, read anew on both sides.')
  registerAct(sync, cli, 'pause', 'Sends nothing to a replica until it is resumed.')
  registerAct(sync, cli, 'resume', 'Goes on, at once.')
  registerRemove(sync, cli)
  registerLeave(sync, cli)
  registerTrash(sync, cli)
}

function registerStatus(sync: Command, cli: Cli): void {
  sync
    .command('status')
    .description('Tells what this site is, and how its replicas are; exit code 1 when a person has to look.')
    .option('--json', 'print JSON')
    .action(({ json }: Output) =>
      withReplicas(loadConfig(), async ({ replicas }) => {
        const view = await replicas.list()
        for (const line of json ? [JSON.stringify(view, null, 2)] : linesOf(view)) cli.print(line)
        if (view.replicas.some(hasTrouble)) cli.exitCode = 1
      }),
    )
}

const hasTrouble = ({ error, quarantine, fuses, verified }: ReplicaView): boolean =>
  error !== null ||
  quarantine.failed + quarantine.mismatch + quarantine.held + fuses.length > 0 ||
  (verified !== null && verified.differing > verified.mended)

export function* linesOf({ site, replicas }: SyncView): Generator<string> {
  yield `${site.name} is ${site.role === 'alone' ? 'alone' : `a ${site.role}`}, epoch ${site.epoch}, intake ${site.intake}${site.leader ? `, of ${site.leader}` : ''}`
  if (site.role === 'leader') {
    const { pending, seeding } = site
    yield `pending  ${pending.changes} changes without a position, the oldest for ${seconds(pending.seconds)}`
    if (!seeding.done) yield 'seeding  what was here before the first replica is still being handed over'
  }
  for (const replica of replicas) yield* linesOfReplica(replica)
}

const seconds = (value: number): string => `${value < 10 ? value.toFixed(1) : Math.round(value)} s`

function* linesOfReplica(replica: ReplicaView): Generator<string> {
  const { name, url, paused, error, lag, quarantine, fuses } = replica
  yield `replica  ${name}  ${url}${paused ? '  paused' : ''}`
  yield `  lag        ${lag.changes} changes, ${seconds(lag.seconds)}`
  if (error) yield `  error      ${error.message} [${error.code}] since ${error.at}`
  if (quarantine.failed + quarantine.mismatch + quarantine.held > 0) {
    yield `  quarantine ${quarantine.failed} failed, ${quarantine.mismatch} changed there, ${quarantine.held} deletes held back`
  }
  for (const { type, id, kind, reason, tries } of quarantine.first) {
    yield `    ${kind}  ${type} ${id}: ${reason} (${tries + 1} tries)`
  }
  for (const { plan, reason, deletes, approvedAt, expiresAt } of fuses) {
    yield `  fuse       plan ${plan}: ${deletes} deletes held back, since ${reason}`
    yield approvedAt
      ? `             approved at ${approvedAt}`
      : `             baton sync approve ${name} --plan ${plan} until ${expiresAt}`
  }
  yield `  verified   ${verifiedLine(replica)}`
}

function verifiedLine({ verified, verifiedAt, verifyWantedAt }: ReplicaView): string {
  const asked = verifyWantedAt ? '; another one is asked for' : ''
  if (!verified) return `never${asked}`
  const { objects, differing, mended, unknown } = verified
  return `${verifiedAt}: ${objects} objects, ${differing} differed, ${mended} mended, ${unknown} unknown here${asked}`
}

function registerAdd(sync: Command, cli: Cli): void {
  sync
    .command('add <name>')
    .description('Makes another site a replica of this one, or changes its url, key and policy.')
    .requiredOption('--url <url>', 'of its web tier')
    .requiredOption('--key <key>', 'an API key of that site, role operator')
    .option('--policy <policy>', 'report, replace or keep what was changed there past the fence', 'report')
    .option('--json', 'print JSON')
    .action(
      (name: string, { url, key, policy, json }: Output & { url: string; key: string; policy: string }) =>
        steer(cli, { name, action: 'put', json }, async (replicas) => {
          if (policy !== 'report' && policy !== 'replace' && policy !== 'keep') {
            throw INPUT_INVALID({ summary: '--policy is report, replace or keep' })
          }
          return replicas.put(name, { url: urlOf(url), key, policy: { '*': policy } })
        }),
    )
}

function registerApprove(sync: Command, cli: Cli): void {
  sync
    .command('approve <name>')
    .description('Lets deletes go that the fuse holds back, or mends what was changed there.')
    .option('--plan <id>', 'of the fuse, as status shows it')
    .option('--mismatches <how>', 'replace, or keep what was found in the trash as a conflict')
    .option('--json', 'print JSON')
    .action((name: string, { plan, mismatches, json }: Output & { plan?: string; mismatches?: string }) =>
      steer(cli, { name, action: 'approve', json }, async (replicas) => {
        if (mismatches === 'replace' || mismatches === 'keep')
          return replicas.approveMismatches(name, mismatches)
        if (plan === undefined || mismatches !== undefined || !/^[0-9a-f-]{36}$/.test(plan)) {
          throw INPUT_INVALID({
            summary: 'give --plan with the id of a plan, or --mismatches replace or keep',
          })
        }
        return replicas.approvePlan(name, plan, actorAtTerminal())
      }),
    )
}

function registerAct(sync: Command, cli: Cli, action: 'verify' | 'pause' | 'resume', text: string): void {
  sync
    .command(`${action} <name>`)
    .description(text)
    .option('--json', 'print JSON')
    .action((name: string, { json }: Output) =>
      steer(cli, { name, action, json }, (replicas) => replicas[action](name)),
    )
}

function registerRemove(sync: Command, cli: Cli): void {
  sync
    .command('remove <name>')
    .description('Sends nothing more to a replica. It keeps what it has.')
    .option('--json', 'print JSON')
    .action((name: string, { json }: Output) =>
      steer(cli, { name, action: 'remove', json }, (replicas) => replicas.remove(name)),
    )
}

function registerLeave(sync: Command, cli: Cli): void {
  sync
    .command('leave')
    .description('Makes a leader without replicas alone again: nothing of what changes is noted any more.')
    .option('--json', 'print JSON')
    .action(({ json }: Output) =>
      withReplicas(loadConfig(), async ({ replicas, postgres }) => {
        const state = await replicas.leave()
        await createAuditLog({ postgres }).record({
          actor: actorAtTerminal(),
          action: 'site.leave',
          subject: 'site',
        })
        cli.print(json ? JSON.stringify(state, null, 2) : 'this site is alone')
      }),
    )
}

interface Steering {
  name: string
  action: string
  json: boolean | undefined
}

async function steer(
  cli: Cli,
  { name, action, json }: Steering,
  work: (replicas: Replicas) => Promise<ReplicaView | undefined | void>,
): Promise<void> {
  await withReplicas(loadConfig(), async ({ replicas, postgres }) => {
    const view = await work(replicas)
    const audit = createAuditLog({ postgres })
    await audit.record({ actor: actorAtTerminal(), action: `replica.${action}`, subject: name })
    if (json) cli.print(JSON.stringify(view ?? { name }, null, 2))
    else if (view) for (const line of linesOfReplica(view)) cli.print(line)
    else cli.print(`${name} is no replica of this site any more`)
  })
}

import { mkdir, writeFile } from 'node:fs/promises'
import path from 'node:path'
import type { Command } from 'commander'
import type { TrashReason } from '../../domain/sync/trash.ts'
import type { TrashBin, TrashEntry } from '../../domain/sync/trash-bin.ts'
import { createAuditLog } from '../../platform/access/audit-log.ts'
import { loadConfig } from '../../platform/config/config.ts'
import { INPUT_INVALID } from '../../platform/queues/errors.ts'
import type { Part } from '../../platform/replication/replicated.ts'
import { actorAtTerminal } from '../actor.ts'
import type { Cli } from '../cli.ts'
import { withReplicas } from '../compose/sync.ts'

interface Options {
  type?: string
  reason?: string
  limit: string
  show?: string
  parts?: string
  json?: boolean
}

const reasons: readonly TrashReason[] = ['deleted', 'replaced', 'conflict']

/** `sync trash` and `sync restore`. */
export function registerTrash(sync: Command, cli: Cli): void {
  sync
    .command('trash')
    .description(
      'Lists what was deleted or replaced here, and conflicts; contents are shown by --show alone.',
    )
    .option('--type <type>', 'states, device, push, job or body')
    .option('--reason <reason>', reasons.join(', '))
    .option('--limit <n>', 'the newest so many', '50')
    .option('--show <n>', 'one of them, with its content')
    .option('--parts <directory>', 'with --show: writes its parts there, each under its sha256')
    .option('--json', 'print JSON')
    .action((options: Options) =>
      withReplicas(loadConfig(), async ({ trash }) => {
        if (options.show !== undefined) return show(cli, trash, { ...options, show: options.show })
        if (options.parts !== undefined) throw INPUT_INVALID({ summary: '--parts goes with --show' })
        await list(cli, trash, options)
      }),
    )
  sync
    .command('restore <n>')
    .description('Writes something of the trash back, as a change of this site. It stays in the trash, too.')
    .option('--yes', 'also when there is something else now, which goes to the trash')
    .option('--json', 'print JSON')
    .action((n: string, { yes = false, json }: { yes?: boolean; json?: boolean }) =>
      withReplicas(loadConfig(), async ({ trash, postgres }) => {
        const restored = await trash.restore(numberOf('the number of what is restored', n), { replace: yes })
        const { type, id, state } = restored
        if (state === 'restored') {
          await createAuditLog({ postgres }).record({
            actor: actorAtTerminal(),
            action: 'trash.restore',
            subject: `${type} ${id}`,
            details: { n: restored.n, replaced: restored.replaced },
          })
        }
        const line =
          state === 'current'
            ? `${type} ${id} is what was in the trash already`
            : `${type} ${id} is restored${restored.replaced ? '; what was there is in the trash' : ''}`
        cli.print(json ? JSON.stringify(restored, null, 2) : line)
      }),
    )
}

async function list(cli: Cli, trash: TrashBin, { type, reason, limit, json }: Options): Promise<void> {
  const wanted = reasons.find((each) => each === reason)
  if (reason !== undefined && !wanted) throw INPUT_INVALID({ summary: `--reason is ${reasons.join(', ')}` })
  const entries = await trash.list({
    ...(type === undefined ? {} : { type }),
    ...(wanted ? { reason: wanted } : {}),
    limit: numberOf('--limit', limit),
  })
  if (json) cli.print(JSON.stringify(entries, null, 2))
  else if (entries.length === 0) cli.print('nothing is in the trash')
  else for (const entry of entries) cli.print(lineOf(entry))
}

const lineOf = ({ n, type, id, reason, size, at }: TrashEntry): string =>
  `${String(n).padStart(6)}  ${at}  ${reason.padEnd(8)}  ${String(size).padStart(9)} B  ${type} ${id}`

async function show(
  cli: Cli,
  trash: TrashBin,
  { show: n, parts: folder }: Options & { show: string },
): Promise<void> {
  const { content, parts, ...entry } = await trash.show(numberOf('--show', n))
  const listed = parts.map(({ sha256, bytes }) => ({ sha256, size: bytes.length }))
  cli.print(JSON.stringify({ ...entry, content: JSON.parse(content) as unknown, parts: listed }, null, 2))
  if (folder !== undefined) await writeParts(folder, parts)
}

async function writeParts(folder: string, parts: readonly Part[]): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 })
  for (const { sha256, bytes } of parts) {
    // It came from another site, and becomes the name of a file.
    if (!/^[0-9a-f]{64}$/.test(sha256)) throw INPUT_INVALID({ summary: 'a part has no sha256 as its name' })
    await writeFile(path.join(folder, sha256), bytes, { mode: 0o600 })
  }
}

/** @throws INPUT_INVALID */
function numberOf(what: string, text: string): number {
  if (/^[1-9][0-9]{0,14}$/.test(text)) return Number(text)
  throw INPUT_INVALID({ summary: `${what} is a number above 0` })
}

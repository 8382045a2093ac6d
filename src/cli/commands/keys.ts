import { type Command, InvalidArgumentError, Option } from 'commander'
import { createSystemClock } from '../../core/clock.ts'
import { createKeyStore } from '../../platform/access/key-store.ts'
import type { KeyStore, KeyView, Role } from '../../platform/access.ts'
import { roles } from '../../platform/access.ts'
import { loadConfig } from '../../platform/config/config.ts'
import { createLog } from '../../platform/log.ts'
import { assertMigrated } from '../../platform/postgres/migrate.ts'
import { createPostgres } from '../../platform/postgres/postgres.ts'
import { actorAtTerminal } from '../actor.ts'
import type { Cli } from '../cli.ts'
import { openDatabase } from '../compose/database.ts'

export function registerKeys(program: Command, cli: Cli): void {
  const keys = program
    .command('keys')
    .description('Makes, lists and revokes API keys. A key is shown once and stored as a hash.')
  keys
    .command('create')
    .description('Makes a key and prints it; it cannot be shown again.')
    .addOption(new Option('--role <role>', 'what it may do').choices([...roles]).makeOptionMandatory())
    .requiredOption('--name <name>', 'what it is for, to be told apart', nameOf)
    .option('--json', 'print JSON')
    .action((options: { role: Role; name: string; json?: boolean }) =>
      withKeys(async (store) => {
        const made = await store.create({ role: options.role, name: options.name, actor: actorAtTerminal() })
        if (options.json) return cli.print(JSON.stringify(made))
        cli.print(made.key)
        cli.complain(`${made.role} ${made.name}, id ${made.id}. Keep it now: it cannot be shown again.`)
      }),
    )
  keys
    .command('list')
    .description('Lists all keys by their first characters, revoked ones too.')
    .option('--json', 'print JSON')
    .action((options: { json?: boolean }) =>
      withKeys(async (store) => {
        const all = await store.list()
        if (options.json) return cli.print(JSON.stringify({ keys: all }))
        if (all.length === 0)
          cli.complain('There is no key yet: baton keys create --role operator --name NAME')
        for (const key of all) cli.print(lineOf(key))
      }),
    )
  keys
    .command('revoke')
    .description('Ends a key; it stops within 5 s on every node.')
    .argument('<key>', 'its id, its first characters, or all of it')
    .option('--json', 'print JSON')
    .action((key: string, options: { json?: boolean }) =>
      withKeys(async (store) => {
        const revoked = await store.revoke(key, actorAtTerminal())
        cli.print(options.json ? JSON.stringify(revoked) : lineOf(revoked))
      }),
    )
}

/** A name stands in lists and in the audit log, one line each. */
function nameOf(text: string): string {
  const name = text.trim()
  if (name !== '' && name.length <= 100 && !/\p{Cc}/u.test(name)) return name
  throw new InvalidArgumentError('It must have 1 to 100 characters, none of them a control character.')
}

const lineOf = (key: KeyView): string =>
  [
    key.id,
    `${key.prefix}…`,
    key.role.padEnd(8),
    key.createdAt,
    key.revokedAt ? `revoked ${key.revokedAt}` : 'in use',
    key.name,
  ].join('  ')

async function withKeys(work: (store: KeyStore) => Promise<void>): Promise<void> {
  const database = await openDatabase(loadConfig(), createLog({ level: 'silent', process: 'keys' }))
  const postgres = createPostgres({
    url: database.url,
    max: 2,
    applicationName: 'baton keys',
    onError: () => undefined,
  })
  try {
    await assertMigrated(postgres)
    await work(createKeyStore({ postgres, clock: createSystemClock() }))
  } finally {
    await postgres.close()
    await database.close()
  }
}

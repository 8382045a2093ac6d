import { loadConfig } from '../../platform/config/config.ts'
import { createLog } from '../../platform/log.ts'
import type { RegisterVerb } from '../cli.ts'
import { openDatabase } from '../compose/database.ts'
import { release } from '../release.ts'

export const registerRelease: RegisterVerb = (program, cli) => {
  program
    .command('release')
    .description(
      "Brings the database schema up to date, Baton's and BullMQ's. Safe to repeat, and side by side.",
    )
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const config = loadConfig()
      const database = await openDatabase(config, createLog({ level: 'warn', process: 'release' }))
      try {
        const applied = await release(database.url)
        if (options.json) cli.print(JSON.stringify({ applied }))
        else cli.print(applied.length > 0 ? `applied ${applied.join(', ')}` : 'nothing to apply')
      } finally {
        await database.close()
      }
    })
}

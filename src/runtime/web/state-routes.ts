import type { FastifyPluginAsync } from 'fastify'
import { addMigrations, type MigrationsOptions } from './routes/migrations.ts'
import { addStates, type StatesOptions } from './routes/states.ts'

export type StateRoutesOptions = StatesOptions & MigrationsOptions

/** Device states and their migrations, as a plugin of the web tier's server. */
export const createStateRoutes =
  (options: StateRoutesOptions): FastifyPluginAsync =>
  async (server) => {
    await addStates(server, options)
    addMigrations(server, options)
  }

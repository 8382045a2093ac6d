import type { FastifyPluginAsync } from 'fastify'
import type { Receiver } from '../../domain/sync/receiver.ts'
import { addReplicas, type ReplicasOptions } from './routes/replicas.ts'
import { addReplication } from './routes/replication.ts'
import { addSite } from './routes/site.ts'

export interface SyncRoutesOptions extends ReplicasOptions {
  receiver: Receiver
}

/** Replicas of this site, and what a leading site asks of it, as a plugin of the web tier's server. */
export const createSyncRoutes =
  (options: SyncRoutesOptions): FastifyPluginAsync =>
  async (server) => {
    addReplicas(server, options)
    addSite(server, options)
    await addReplication(server, options.receiver)
  }

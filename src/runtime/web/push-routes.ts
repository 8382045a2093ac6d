import type { FastifyPluginAsync } from 'fastify'
import type { Clock } from '../../core/clock.ts'
import type { Acceptance } from '../../domain/push/acceptance.ts'
import type { Pushes } from '../../domain/push/delivery-log.ts'
import type { DeviceTokens } from '../../domain/push/device-token.ts'
import type { Devices } from '../../domain/push/devices.ts'
import type { Listens } from '../../domain/push/listens.ts'
import type { Authenticator } from '../../platform/access.ts'
import type { Postgres } from '../../platform/postgres/postgres.ts'
import { createIdempotency } from './idempotency.ts'
import { createListenAccess } from './listen-access.ts'
import { addPushDevices } from './routes/push-devices.ts'
import { addPushIntake } from './routes/push-intake.ts'
import { addPushListen } from './routes/push-listen.ts'
import { addPushSocket } from './routes/push-socket.ts'

export interface PushRoutesOptions {
  postgres: Postgres
  clock: Clock
  authenticator: Authenticator
  devices: Devices
  acceptance: Acceptance
  pushes: Pushes
  listens: Listens
  tokens: DeviceTokens
  confirmMs: number | undefined
  allowPrivate: boolean
  /** Most listens of this process. */
  maxListens: number
}

/** The routes of devices, pushes and listens, as a plugin of the web tier. */
export const createPushRoutes =
  (options: PushRoutesOptions): FastifyPluginAsync =>
  async (server) => {
    const { postgres, tokens, authenticator } = options
    const access = createListenAccess(tokens, authenticator)
    addPushDevices(server, options)
    addPushIntake(server, { ...options, idempotency: createIdempotency({ postgres }) })
    addPushListen(server, { ...options, access })
    await addPushSocket(server, { ...options, access })
  }

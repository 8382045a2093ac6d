import { randomBytes, randomUUID } from 'node:crypto'
import { createAcceptance } from '../../domain/push/acceptance.ts'
import { createAlarms } from '../../domain/push/alarms.ts'
import { createPushes } from '../../domain/push/delivery-log.ts'
import { createDeviceTokens } from '../../domain/push/device-token.ts'
import { createDevices } from '../../domain/push/devices.ts'
import { createDispatcher } from '../../domain/push/dispatcher.ts'
import { createListenRows } from '../../domain/push/listen-rows.ts'
import { createListens, type Listens } from '../../domain/push/listens.ts'
import { createPushPayloads } from '../../domain/push/payloads.ts'
import { createPushWorker, type PushWorker } from '../../domain/push/push-worker.ts'
import { createStatistics } from '../../domain/push/statistics.ts'
import { createWakes } from '../../domain/push/wakes.ts'
import type { Authenticator } from '../../platform/access.ts'
import type { Tracing } from '../../platform/tracing.ts'
import { createPushRoutes } from '../../runtime/web/push-routes.ts'
import type { Ground } from '../compose.ts'
import { createProviders } from './push-providers.ts'

/** What both tiers and the commands need to bring pushes in. */
export function createPushIntake(ground: Ground) {
  const { postgres, backend, wakeBus, clock, log, metrics, config, releasers } = ground
  const wakes = createWakes({ bus: wakeBus, log })
  const alarms = createAlarms({ backend, clock, log })
  const payloads = createPushPayloads({ store: ground.payloads, clock, log })
  const acceptance = createAcceptance({ postgres, wakes, alarms, payloads, clock, metrics })
  releasers.add('pushes', () => acceptance.idle())
  // Without a secret tokens end with the process that issued them; production demands one.
  const tokens = createDeviceTokens(config.secret ?? randomBytes(32).toString('hex'))
  return {
    acceptance,
    payloads,
    alarms,
    wakes,
    tokens,
    devices: createDevices({ postgres, tokens }),
    pushes: createPushes(postgres),
  }
}

/** The part of pushes in the web tier. */
export function createPushWeb(ground: Ground, authenticator: Authenticator, maxListens: number) {
  const { postgres, wakeBus, clock, log, metrics, config } = ground
  const intake = createPushIntake(ground)
  const listens: Listens = createListens({
    rows: createListenRows(postgres),
    payloads: intake.payloads,
    wakes: intake.wakes,
    bus: wakeBus,
    node: randomUUID(),
    clock,
    log,
    metrics,
  })
  const plugin = createPushRoutes({
    ...intake,
    postgres,
    clock,
    authenticator,
    listens,
    confirmMs: config.confirmMs,
    allowPrivate: config.pushAllowPrivate,
    maxListens,
  })
  const statistics = createStatistics({ postgres, clock, log })
  return {
    plugin,
    /** How many are open. */
    listens: () => listens.size,
    /** Before the server takes requests. */
    start: async () => {
      await listens.start()
      await statistics.start()
    },
    /** Answers the listens that wait; they would hold up the end of the requests under way. */
    settle: () => listens.settle(),
    dismiss: () => listens.dismiss(),
    stop: async () => {
      await listens.stop()
      await statistics.stop()
    },
  }
}

/** The part of pushes in a worker's child. */
export function createPushSending(
  ground: Ground & { tracing: Tracing | undefined },
  runner: string,
  drainMs: number,
): PushWorker {
  const { postgres, backend, clock, log, metrics, config, tracing } = ground
  const alarms = createAlarms({ backend, clock, log })
  const dispatcher = createDispatcher({
    postgres,
    providers: createProviders(ground),
    payloads: createPushPayloads({ store: ground.payloads, clock, log }),
    alarms,
    flood: { intervalMs: config.floodIntervalMs, burst: config.floodBurst },
    clock,
    log,
    metrics,
    tracing,
  })
  const { pushRetentionMs: retentionMs } = config
  return createPushWorker({ postgres, backend, dispatcher, runner, clock, log, retentionMs, drainMs })
}

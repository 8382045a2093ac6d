import type { Provider } from '../../domain/push/provider.ts'
import { createGuardedProvider } from '../../domain/push/provider-guard.ts'
import { createPostgresShelf } from '../../domain/push/providers/apns/token-shelf.ts'
import { createApnsTokens } from '../../domain/push/providers/apns/tokens.ts'
import { createApnsProvider } from '../../domain/push/providers/apns.ts'
import { createFcmAccess } from '../../domain/push/providers/fcm/access.ts'
import { createFcmProvider } from '../../domain/push/providers/fcm.ts'
import { createStubProvider } from '../../domain/push/providers/stub.ts'
import { createWebhookProvider } from '../../domain/push/providers/webhook.ts'
import { createVapid } from '../../domain/push/providers/webpush/vapid.ts'
import { createWebpushProvider } from '../../domain/push/providers/webpush.ts'
import { createHttpSender, type HttpSender } from '../../domain/push/sender/http-sender.ts'
import type { TransportKind } from '../../domain/push/transport.ts'
import { createTroubleLog, type TroubleLog } from '../../platform/trouble-log.ts'
import type { Ground } from '../compose.ts'

/** Longest wait for an answer of a provider, ms. */
const timeoutMs = 10_000
/** One origin, team or project that hangs takes no more than `maxWhenSlow` of the 256 sends of a process. */
const guard = { maxWhenSlow: 64, failures: 5, openMs: 1_000 }

export type ProviderGround = Pick<Ground, 'config' | 'clock' | 'log' | 'postgres' | 'releasers'>

/** Those that are configured, each behind its bulkheads and breakers. */
export function createProviders(ground: ProviderGround): ReadonlyMap<TransportKind, Provider> {
  const { config, clock, log, releasers } = ground
  const sender = createHttpSender({ clock, allowPrivate: config.pushAllowPrivate })
  releasers.add('push providers', () => sender.close())
  const troubles = createTroubleLog(log, clock)
  const providers = [
    createWebhookProvider({ sender, clock, timeoutMs }),
    webpush(ground, sender),
    apns(ground, troubles),
    fcm(ground, troubles),
    config.pushAllowPrivate ? createStubProvider() : undefined,
  ].filter((each) => each !== undefined)
  return new Map(providers.map((each) => [each.kind, createGuardedProvider(each, { clock, ...guard })]))
}

function webpush({ config, clock }: ProviderGround, sender: HttpSender): Provider | undefined {
  const { vapidSubject: subject, vapidPublicKey: publicKey, vapidPrivateKey: privateKey } = config
  if (subject === undefined || publicKey === undefined || privateKey === undefined) return undefined
  return createWebpushProvider({
    sender,
    vapid: createVapid({ subject, publicKey, privateKey }, clock),
    clock,
    timeoutMs,
  })
}

function apns(ground: ProviderGround, troubles: TroubleLog): Provider | undefined {
  const { config, clock, postgres, releasers } = ground
  const { apnsTeamId: teamId, apnsKeyId: keyId, apnsKey: key, apnsOrigin } = config
  if (teamId === undefined || keyId === undefined || key === undefined) return undefined
  // Its sessions stay however idle they are: Apple takes connections that come and go for an attack.
  const sender = createHttpSender({ clock, allowPrivate: true, idleMs: 0, pingEveryMs: 60_000 })
  releasers.add('APNs', () => sender.close())
  const shelf = createPostgresShelf({ postgres, key })
  const tokens = createApnsTokens({ teamId, keyId, key, clock, shelf })
  return createApnsProvider({ sender, tokens, clock, troubles, timeoutMs, origin: apnsOrigin })
}

function fcm({ config, clock, releasers }: ProviderGround, troubles: TroubleLog): Provider | undefined {
  const { fcmServiceAccount: account, fcmOrigin } = config
  if (!account) return undefined
  // Where it leads is said by the operator, not by devices.
  const sender = createHttpSender({ clock, allowPrivate: true })
  releasers.add('FCM', () => sender.close())
  const access = createFcmAccess({ sender, account, clock, timeoutMs })
  const { projectId } = account
  const origin = fcmOrigin ?? 'https://fcm.googleapis.com'
  return createFcmProvider({ sender, access, projectId, clock, troubles, timeoutMs, origin })
}

import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import { appleOrigin } from '../../domain/push/providers/apns.ts'
import { createFcmAccess } from '../../domain/push/providers/fcm/access.ts'
import { connectTls } from '../../domain/push/sender/connect.ts'
import { createHttpSender } from '../../domain/push/sender/http-sender.ts'
import type { Config } from '../../platform/config/config.ts'
import { type Finding, fault, ok, warning } from './check.ts'

const limitMs = 5_000

/** Looks at the providers of cloud pushes, as far as one can without sending any. */
export async function checkPushProviders(config: Config, clock: Clock): Promise<Finding[]> {
  return [checkWebpush(config), await checkApns(config), await checkFcm(config, clock)]
}

function checkWebpush({ vapidSubject }: Config): Finding {
  const found = vapidSubject === undefined ? 'not configured' : `configured, for ${vapidSubject}`
  return ok('Web Push', found)
}

/** Apple says nothing of a key before the first push; that it is one, the configuration has seen. */
async function checkApns({ apnsTeamId, apnsKeyId, apnsOrigin }: Config): Promise<Finding> {
  if (apnsTeamId === undefined || apnsKeyId === undefined) return ok('APNs', 'not configured')
  const odd = Object.entries({ APNS_TEAM_ID: apnsTeamId, APNS_KEY_ID: apnsKeyId }).find(
    ([, id]) => !/^[0-9A-Z]{10}$/.test(id),
  )
  if (odd) {
    const found = `${odd[0]} is not ten capital letters and digits, as Apple's are`
    return warning('APNs', found, "Compare it with Apple's developer account.")
  }
  const url = new URL(apnsOrigin ?? appleOrigin('production'))
  const found = `team ${apnsTeamId}, key ${apnsKeyId}, ${url.origin}`
  try {
    if (url.protocol === 'https:') await assertHttp2(url)
    return ok('APNs', found)
  } catch (error) {
    return fault('APNs', messageOf(error), 'See that this machine may reach it, and APNS_ORIGIN.')
  }
}

async function assertHttp2(url: URL): Promise<void> {
  const socket = await connectTls(url, { allowPrivate: true, connectTimeoutMs: limitMs })
  const { alpnProtocol } = socket
  socket.destroy()
  if (alpnProtocol !== 'h2') throw new Error(`${url.origin} does not speak HTTP/2`)
}

/** An access token is asked for, which shows that Google knows account and key. */
async function checkFcm({ fcmServiceAccount: account }: Config, clock: Clock): Promise<Finding> {
  if (!account) return ok('FCM', 'not configured')
  const sender = createHttpSender({ clock, allowPrivate: true, connectTimeoutMs: limitMs })
  try {
    const access = await createFcmAccess({ sender, account, clock, timeoutMs: limitMs }).current()
    if (access.kind === 'token') return ok('FCM', `${account.clientEmail} may send for ${account.projectId}`)
    const { reason } = access.result
    return access.refused
      ? fault('FCM', reason, 'See that the service account still exists, and that its key is not revoked.')
      : fault('FCM', reason, 'See that this machine may reach the token_uri of FCM_SERVICE_ACCOUNT.')
  } finally {
    await sender.close()
  }
}

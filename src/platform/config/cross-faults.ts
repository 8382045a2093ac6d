import type { KeyObject } from 'node:crypto'
import type { Fault } from '../../core/errors.ts'
import type { ServiceAccountSetting } from './push-credentials.ts'

/** What is looked at across settings, or more closely than their type says. */
interface Crossed {
  secret: string | undefined
  apiKeys: string[]
  bodyStores: string[]
  vapidSubject: string | undefined
  vapidPublicKey: string | undefined
  vapidPrivateKey: string | undefined
  pushAllowPrivate: boolean
  apnsTeamId: string | undefined
  apnsKeyId: string | undefined
  apnsKey: KeyObject | undefined
  apnsOrigin: string | undefined
  fcmServiceAccount: ServiceAccountSetting | undefined
  fcmOrigin: string | undefined
}

/** @param unusable names of settings that are there, but could not be read; their faults are told already */
export function crossFaults(config: Crossed, unusable: ReadonlySet<string>): Fault[] {
  const faults: Fault[] = []
  if (config.secret !== undefined && config.secret.length < 16) {
    faults.push({ path: 'BATON_SECRET', message: 'must have at least 16 characters' })
  }
  for (const entry of config.apiKeys) {
    if (!/^(producer|operator|viewer):.{16,}$/.test(entry)) {
      faults.push({
        path: 'BATON_API_KEYS',
        message:
          'each entry must be producer:KEY, operator:KEY or viewer:KEY with a key of at least 16 characters',
      })
      break
    }
  }
  faults.push(...vapidFaults(config), ...apnsFaults(config, unusable), ...originFaults(config))
  if (config.bodyStores.length === 1) {
    faults.push({ path: 'BODY_STORES', message: 'must name at least two stores' })
  }
  return faults
}

function vapidFaults({ vapidSubject, vapidPublicKey, vapidPrivateKey }: Crossed): Fault[] {
  const given = [vapidSubject, vapidPublicKey, vapidPrivateKey]
  if (given.every((each) => each === undefined)) return []
  const faults: Fault[] = []
  if (!/^(mailto:|https:)/.test(vapidSubject ?? '')) {
    faults.push({ path: 'VAPID_SUBJECT', message: 'must begin with mailto: or https:' })
  }
  const key = { path: '', message: 'must come from one pair: `baton push vapid` makes one' }
  if (Buffer.from(vapidPublicKey ?? '', 'base64url').length !== 65) {
    faults.push({ ...key, path: 'VAPID_PUBLIC_KEY' })
  }
  if (Buffer.from(vapidPrivateKey ?? '', 'base64url').length !== 32) {
    faults.push({ ...key, path: 'VAPID_PRIVATE_KEY' })
  }
  return faults
}

function apnsFaults({ apnsTeamId, apnsKeyId, apnsKey }: Crossed, unusable: ReadonlySet<string>): Fault[] {
  const given = Object.entries({ APNS_TEAM_ID: apnsTeamId, APNS_KEY_ID: apnsKeyId, APNS_KEY: apnsKey })
  if (given.every(([name, value]) => value === undefined && !unusable.has(name))) return []
  return given.flatMap(([name, value]) => {
    if (value === undefined) {
      return unusable.has(name)
        ? []
        : [{ path: name, message: 'must be set: APNs needs team, key id and key' }]
    }
    const isId = typeof value !== 'string' || /^[0-9A-Za-z]+$/.test(value)
    return isId ? [] : [{ path: name, message: 'must have letters and digits only, ten as a rule' }]
  })
}

/** What goes to a provider bears a token with which anybody could send. */
function originFaults({ apnsOrigin, fcmOrigin, fcmServiceAccount, pushAllowPrivate }: Crossed): Fault[] {
  const urls = {
    APNS_ORIGIN: apnsOrigin,
    FCM_ORIGIN: fcmOrigin,
    FCM_SERVICE_ACCOUNT: fcmServiceAccount?.tokenUri,
  }
  return Object.entries(urls).flatMap(([path, text]) => {
    if (text === undefined) return []
    const url = URL.parse(text)
    const what = path === 'FCM_SERVICE_ACCOUNT' ? 'has a token_uri that ' : ''
    if (!url) return [{ path, message: `${what}is no URL` }]
    const safe =
      url.protocol === 'https:' ||
      pushAllowPrivate ||
      /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(url.hostname)
    return safe
      ? []
      : [{ path, message: `${what}must begin with https://, unless PUSH_ALLOW_PRIVATE is set` }]
  })
}

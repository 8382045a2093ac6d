import type { Fault } from '../../core/errors.ts'

/** What is looked at across settings, or more closely than their type says. */
interface Crossed {
  secret: string | undefined
  apiKeys: string[]
  bodyStores: string[]
  vapidSubject: string | undefined
  vapidPublicKey: string | undefined
  vapidPrivateKey: string | undefined
}

export function crossFaults(config: Crossed): Fault[] {
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
  faults.push(...vapidFaults(config))
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

import { apnsKey, serviceAccount } from './push-credentials.ts'
import { flag, integer, text, url } from './settings.ts'

const day = 86_400_000

/** What there is to set about pushes. */
export const pushSettings = {
  confirmMs: integer(
    'CONFIRM_MS',
    undefined,
    { min: 0, max: day },
    {
      default: 'adaptive',
      unit: 'ms',
      about:
        'Default confirmation timeout of a priority push. Unset: twice the reconnect time of the device.',
    },
  ),
  floodIntervalMs: integer(
    'FLOOD_INTERVAL_MS',
    10_000,
    { min: 1, max: day },
    {
      default: '10000',
      unit: 'ms',
      about: 'At most one cloud push a device in this time, beyond the burst.',
    },
  ),
  floodBurst: integer(
    'FLOOD_BURST',
    3,
    { min: 1, max: 1_000 },
    {
      default: '3',
      unit: 'pushes',
      about: 'Cloud pushes that a device that was quiet may get at once.',
    },
  ),
  pushAllowPrivate: flag('PUSH_ALLOW_PRIVATE', {
    default: '0',
    unit: '0 or 1',
    about: 'Whether pushes may go to private and loopback addresses. For tests and intranets.',
  }),
  pushRetentionMs: integer(
    'PUSH_RETENTION_MS',
    7 * day,
    { min: 60_000, max: 3_650 * day },
    {
      default: '604800000',
      unit: 'ms',
      about: 'How long closed pushes stay, with their delivery logs.',
    },
  ),
  vapidSubject: text('VAPID_SUBJECT', undefined, {
    default: 'none',
    unit: 'mailto: or https:',
    about:
      'Whom a push service can write to. Web Push needs all three VAPID settings; `baton push vapid` makes keys.',
  }),
  vapidPublicKey: text('VAPID_PUBLIC_KEY', undefined, {
    default: 'none: no Web Push',
    unit: 'base64url',
    about: 'The public key that browsers subscribe with, 65 bytes.',
  }),
  vapidPrivateKey: text('VAPID_PRIVATE_KEY', undefined, {
    default: 'none',
    unit: 'base64url',
    about: 'Its private half, 32 bytes.',
  }),
  apnsTeamId: text('APNS_TEAM_ID', undefined, {
    default: 'none',
    unit: 'id',
    about: "The team of the apps, as Apple's developer account shows it. APNs needs team, key id and key.",
  }),
  apnsKeyId: text('APNS_KEY_ID', undefined, {
    default: 'none',
    unit: 'id',
    about: 'The id of the key; it is part of the name of the `.p8` file.',
  }),
  apnsKey: apnsKey('APNS_KEY', {
    default: 'none: no APNs',
    unit: 'PEM or path',
    about:
      'The key that signs: the text of the `.p8` file (`\\n` may stand for the ends of lines) or its path. P-256, PKCS #8.',
  }),
  apnsOrigin: url('APNS_ORIGIN', ['https', 'http'], {
    default: "Apple's, by the device's environment",
    unit: 'URL',
    about: 'Where pushes for APNs go instead. `http` only to this machine or with PUSH_ALLOW_PRIVATE.',
  }),
  fcmServiceAccount: serviceAccount('FCM_SERVICE_ACCOUNT', {
    default: 'none: no FCM',
    unit: 'JSON or path',
    about: 'The service account that sends: its JSON, or the path of the file. Its `token_uri` is honoured.',
  }),
  fcmOrigin: url('FCM_ORIGIN', ['https', 'http'], {
    default: 'https://fcm.googleapis.com',
    unit: 'URL',
    about: 'Where pushes for FCM go. `http` only to this machine or with PUSH_ALLOW_PRIVATE.',
  }),
}

import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { BatonError } from '../../../src/core/errors.ts'
import { type Config, type Environment, loadConfig } from '../../../src/platform/config/config.ts'
import { apnsAccount, fcmAccount } from '../../support/provider-accounts.ts'

const apns = apnsAccount()
const { json } = fcmAccount('https://oauth2.example.com/token')
const ids = { APNS_TEAM_ID: apns.teamId, APNS_KEY_ID: apns.keyId }

function faultsOf(environment: Environment): string[] {
  try {
    loadConfig(environment)
    return []
  } catch (error) {
    if (!(error instanceof BatonError)) throw error
    return (error.faults ?? []).map(({ path: name, message }) => `${name} ${message}`)
  }
}

let folder: string
beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'baton-keys-'))
  await writeFile(path.join(folder, 'AuthKey.p8'), apns.pem)
  await writeFile(path.join(folder, 'account.json'), JSON.stringify(json))
})
afterAll(() => rm(folder, { recursive: true }))

const pemOf = (curve: string, type: 'pkcs8' | 'sec1' = 'pkcs8'): string =>
  generateKeyPairSync('ec', { namedCurve: curve }).privateKey.export({ format: 'pem', type }) as string

describe('the credentials of APNs', () => {
  it.each([
    ['its text', () => apns.pem],
    ['its text on one line', () => apns.pem.replaceAll('\n', '\\n')],
    ['its path', () => path.join(folder, 'AuthKey.p8')],
  ])('take the key as %s', (_what, value) => {
    const config = loadConfig({ ...ids, APNS_KEY: value() })
    expect(config.apnsKey?.equals(apns.key)).toBe(true)
  })

  it.each([
    ['of another curve', pemOf('P-384')],
    ['of SEC 1', pemOf('P-256', 'sec1')],
    ['that is public', apns.publicKey.export({ format: 'pem', type: 'spki' }) as string],
    ['that is RSA', json.private_key],
    ['that is cut', apns.pem.replace(/[\w+/]{20}/, '')],
  ])('refuse a key %s', (_what, value) => {
    expect(faultsOf({ ...ids, APNS_KEY: value })).toEqual([
      'APNS_KEY must be a P-256 private key in PKCS #8, the text of the .p8 file or its path',
    ])
  })

  it('tell every fault at once, none twice, and never the value', () => {
    const faults = faultsOf({
      APNS_TEAM_ID: '"TEAM"',
      APNS_KEY: 'c2VjcmV0LWtleQ',
      FCM_SERVICE_ACCOUNT: '{"a": sec}',
    })
    expect(faults.map((fault) => fault.split(' ')[0])).toEqual([
      'APNS_KEY',
      'FCM_SERVICE_ACCOUNT',
      'APNS_TEAM_ID',
      'APNS_KEY_ID',
    ])
    expect(faults.join()).not.toMatch(/c2VjcmV0|sec\}/)
    expect(faultsOf({ APNS_KEY: apns.pem }).map((fault) => fault.split(' ')[0])).toEqual([
      'APNS_TEAM_ID',
      'APNS_KEY_ID',
    ])
    expect(faultsOf({ APNS_KEY: 'nowhere.p8' })).toHaveLength(3)
  })
})

describe('the service account of FCM', () => {
  it.each([
    ['its JSON', () => JSON.stringify(json)],
    ['its path', () => path.join(folder, 'account.json')],
  ])('is taken as %s', (_what, value) => {
    expect(loadConfig({ FCM_SERVICE_ACCOUNT: value() }).fcmServiceAccount).toMatchObject({
      projectId: 'project-1',
      clientEmail: json.client_email,
      privateKeyId: 'key-1',
      tokenUri: 'https://oauth2.example.com/token',
    })
  })

  it('asks Google where nothing is said of whom to ask', () => {
    const { token_uri: _none, ...rest } = json
    const { fcmServiceAccount } = loadConfig({ FCM_SERVICE_ACCOUNT: JSON.stringify(rest) })
    expect(fcmServiceAccount?.tokenUri).toBe('https://oauth2.googleapis.com/token')
  })

  it('is refused with everything that it lacks', () => {
    const account = {
      type: 'service_account',
      client_email: ' ',
      private_key: apns.pem,
      token_uri: 'ftp://x',
    }
    expect(faultsOf({ FCM_SERVICE_ACCOUNT: JSON.stringify(account) })).toEqual([
      'FCM_SERVICE_ACCOUNT is no usable service account: project_id is missing, client_email is missing, private_key is no RSA key in PEM, token_uri is no URL',
    ])
    expect(faultsOf({ FCM_SERVICE_ACCOUNT: '/nowhere.json' })).toEqual([
      'FCM_SERVICE_ACCOUNT names a file that cannot be read (ENOENT)',
    ])
    expect(faultsOf({ FCM_SERVICE_ACCOUNT: '[]' })).toHaveLength(1)
  })
})

it('sends tokens in the clear to this machine only, unless told otherwise', () => {
  const origins = (host: string) => ({
    APNS_ORIGIN: `http://${host}`,
    FCM_ORIGIN: `http://${host}`,
    FCM_SERVICE_ACCOUNT: JSON.stringify({ ...json, token_uri: `http://${host}/token` }),
  })
  expect(faultsOf(origins('127.0.0.1:8080'))).toEqual([])
  expect(faultsOf({ ...origins('push.intra'), PUSH_ALLOW_PRIVATE: '1' })).toEqual([])
  expect(faultsOf(origins('127.0.0.1.example.com')).map((fault) => fault.split(' ')[0])).toEqual([
    'APNS_ORIGIN',
    'FCM_ORIGIN',
    'FCM_SERVICE_ACCOUNT',
  ])
})

it('does not show a key to who prints the configuration', () => {
  const config: Config = loadConfig({ ...ids, APNS_KEY: apns.pem, FCM_SERVICE_ACCOUNT: JSON.stringify(json) })
  const shown = inspect(config, { depth: 9 }) + JSON.stringify(config)
  for (const pem of [apns.pem, json.private_key]) expect(shown).not.toContain(pem.split('\n')[1])
})

import { createPrivateKey, type KeyObject } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Setting } from './settings.ts'

/** What of a service account's file is needed to send. The key is an object, so that nothing prints it. */
export interface ServiceAccountSetting {
  projectId: string
  clientEmail: string
  privateKey: KeyObject
  privateKeyId: string | undefined
  tokenUri: string
}

type About = Omit<Setting<unknown>, 'read' | 'fallback' | 'name'>

/** The key that Apple gives as a `.p8` file: its text, also with `\n` for the ends of lines, or its path. */
export const apnsKey = (name: string, about: About): Setting<KeyObject | undefined> => ({
  ...about,
  name,
  fallback: undefined,
  read: (value) => {
    const pem = value.includes('-----BEGIN') ? value : readText(value)
    const form = 'must be a P-256 private key in PKCS #8, the text of the .p8 file or its path'
    // SEC 1 and encrypted keys have other names here; Apple gives neither.
    if (!/-----BEGIN PRIVATE KEY-----/.test(pem)) throw new Error(form)
    const key = keyOf(pem)
    if (key?.asymmetricKeyDetails?.namedCurve !== 'prime256v1') throw new Error(form)
    return key
  },
})

/** A service account of Google's, as JSON or as the path of its file. */
export const serviceAccount = (name: string, about: About): Setting<ServiceAccountSetting | undefined> => ({
  ...about,
  name,
  fallback: undefined,
  read: (value) => readAccount(value.trimStart().startsWith('{') ? value : readText(value)),
})

const defaultTokenUri = 'https://oauth2.googleapis.com/token'

function readAccount(text: string): ServiceAccountSetting {
  const account = parsed(text)
  if (!account) throw new Error("must be a service account's JSON, or the path of its file")
  const { project_id: projectId, client_email: clientEmail, private_key_id: keyId } = account
  const { private_key: pem, token_uri: tokenUri = defaultTokenUri } = account
  const key = isText(pem) ? keyOf(pem) : undefined
  const faults = Object.entries({
    'project_id is missing': isText(projectId),
    'client_email is missing': isText(clientEmail),
    'private_key is no RSA key in PEM': key?.asymmetricKeyType === 'rsa',
    'token_uri is no URL': isText(tokenUri) && isHttp(tokenUri),
  }).flatMap(([fault, fine]) => (fine ? [] : [fault]))
  if (!key || faults.length > 0) throw new Error(`is no usable service account: ${faults.join(', ')}`)
  return {
    projectId: projectId as string,
    clientEmail: clientEmail as string,
    privateKey: key,
    privateKeyId: isText(keyId) ? keyId : undefined,
    tokenUri: tokenUri as string,
  }
}

const isHttp = (text: string): boolean => /^https?:$/.test(URL.parse(text)?.protocol ?? '')

const isText = (value: unknown): value is string => typeof value === 'string' && value.trim() !== ''

function parsed(text: string): Record<string, unknown> | undefined {
  try {
    const found: unknown = JSON.parse(text)
    return typeof found === 'object' && found !== null ? (found as Record<string, unknown>) : undefined
  } catch {
    // The text is a secret: what a parser would say of it shows a part.
    return undefined
  }
}

function keyOf(pem: string): KeyObject | undefined {
  try {
    return createPrivateKey(pem.replaceAll('\\n', '\n'))
  } catch {
    return undefined
  }
}

/** What is wrong is told without the value: it may be a secret that was not recognised as one. */
function readText(file: string): string {
  try {
    return readFileSync(file.trim(), 'utf8')
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unreadable'
    throw new Error(`names a file that cannot be read (${code})`)
  }
}

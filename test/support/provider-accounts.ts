import { generateKeyPairSync } from 'node:crypto'
import { type PushService, startPushService } from './push-service.ts'

/** A key such as Apple gives, made here. */
export function apnsAccount() {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const pem = privateKey.export({ format: 'pem', type: 'pkcs8' }) as string
  return { teamId: 'TEAM123456', keyId: 'KEY1234567', key: privateKey, publicKey, pem }
}

/** A service account such as Google gives, made here. */
export function fcmAccount(tokenUri: string) {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2_048 })
  const json = {
    type: 'service_account',
    project_id: 'project-1',
    private_key_id: 'key-1',
    private_key: privateKey.export({ format: 'pem', type: 'pkcs8' }) as string,
    client_email: 'push@project-1.iam.gserviceaccount.com',
    token_uri: tokenUri,
  }
  const account = {
    projectId: json.project_id,
    clientEmail: json.client_email,
    privateKey,
    privateKeyId: json.private_key_id,
    tokenUri,
  }
  return { json, account, publicKey }
}

export interface TokenService {
  service: PushService
  uri: string
  /** Access tokens given so far: `access-1`, `access-2`, … */
  readonly given: number
}

/** Where a service account gets access tokens. */
export async function startTokenService(expiresIn = 3_599): Promise<TokenService> {
  const service = await startPushService()
  let given = 0
  service.answer(() => {
    given += 1
    const body = { access_token: `access-${given}`, expires_in: expiresIn, token_type: 'Bearer' }
    return { status: 200, body: JSON.stringify(body) }
  })
  return {
    service,
    uri: `${service.origin}/token`,
    get given() {
      return given
    },
  }
}

/** The parts of a signed token. */
export function readJwt(token: string) {
  const [head = '', claims = '', signature = ''] = token.split('.')
  const read = (part: string) =>
    JSON.parse(Buffer.from(part, 'base64url').toString()) as Record<string, unknown>
  return {
    head: read(head),
    claims: read(claims),
    signed: Buffer.from(`${head}.${claims}`),
    signature: Buffer.from(signature, 'base64url'),
  }
}

import { Agent, type ClientRequest, type IncomingMessage, request as requestHttp } from 'node:http'
import { request as requestHttps, Agent as SecureAgent } from 'node:https'
import { codeOf, messageOf } from '../../../core/errors.ts'
import { ADDRESS_REFUSED } from '../errors.ts'
import { publicLookup } from './address-safety.ts'
import { type ConnectOptions, tlsOptions } from './connect.ts'
import type { HttpAnswer, HttpRequest } from './http-sender.ts'
import { maxAnswerBytes } from './http2.ts'

export interface Http1 {
  post(request: HttpRequest, timeoutMs: number): Promise<HttpAnswer>
  close(): void
}

const maxSockets = 32
/** What says that nothing can have arrived. */
const beforeSending = new Set(['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'])

/** HTTP/1.1 with connections that are kept, for origins that speak nothing newer. */
export function createHttp1(options: ConnectOptions): Http1 {
  const agents = {
    'http:': new Agent({ keepAlive: true, maxSockets }),
    'https:': new SecureAgent({ keepAlive: true, maxSockets }),
  }
  return {
    post: (request, timeoutMs) =>
      new Promise((resolve) => {
        const call = start(request, options, agents)
        const timer = setTimeout(() => {
          resolve({ kind: 'failed', sent: true, reason: `no answer within ${timeoutMs} ms` })
          call.destroy()
        }, timeoutMs)
        const settle = (answer: HttpAnswer): void => {
          clearTimeout(timer)
          resolve(answer)
        }
        call.on('response', (response) => collect(response, settle))
        call.on('error', (error) => settle(failureOf(error)))
        call.end(request.body)
      }),
    close: () => {
      agents['http:'].destroy()
      agents['https:'].destroy()
    },
  }
}

function start(
  { url, headers, body }: HttpRequest,
  options: ConnectOptions,
  agents: { 'http:': Agent; 'https:': SecureAgent },
): ClientRequest {
  const common = { method: 'POST', headers: { ...headers, 'content-length': String(body.length) } }
  const host = url.hostname.replace(/^\[|\]$/g, '')
  if (url.protocol === 'https:') {
    return requestHttps(url, { ...common, agent: agents['https:'], ...tlsOptions(host, options) })
  }
  const safety = options.allowPrivate ? {} : { lookup: publicLookup }
  return requestHttp(url, { ...common, agent: agents['http:'], ...safety })
}

function failureOf(error: Error): HttpAnswer {
  if (ADDRESS_REFUSED.is(error)) return { kind: 'refused', reason: error.message }
  const sent = !beforeSending.has(codeOf(error) ?? '')
  return { kind: 'failed', sent, reason: messageOf(error) || (codeOf(error) ?? 'connection failed') }
}

function collect(response: IncomingMessage, settle: (answer: HttpAnswer) => void): void {
  const chunks: Buffer[] = []
  let size = 0
  response.on('data', (chunk: Buffer) => {
    if (size < maxAnswerBytes) chunks.push(chunk)
    size += chunk.length
  })
  response.on('close', () => {
    const headers = Object.fromEntries(
      Object.entries(response.headers).map(([name, value]) => [
        name,
        Array.isArray(value) ? value.join(', ') : (value ?? ''),
      ]),
    )
    const body = Buffer.concat(chunks).subarray(0, maxAnswerBytes).toString()
    settle({ kind: 'answer', status: response.statusCode ?? 0, headers, body })
  })
  response.on('error', () => undefined)
}

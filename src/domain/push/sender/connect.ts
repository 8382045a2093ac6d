import { isIP } from 'node:net'
import { connect, rootCertificates, type TLSSocket } from 'node:tls'
import { ADDRESS_REFUSED, PROVIDER_UNREACHABLE } from '../errors.ts'
import { isPublicAddress, publicLookup } from './address-safety.ts'

export interface ConnectOptions {
  allowPrivate: boolean
  ca?: string
  connectTimeoutMs?: number
}

export const defaultConnectTimeoutMs = 5_000

/** What a TLS connection to a host is made with, for HTTP/2 and HTTP/1.1 alike. */
export const tlsOptions = (host: string, options: ConnectOptions) => ({
  ...(isIP(host) === 0 ? { servername: host } : {}),
  ...(options.allowPrivate ? {} : { lookup: publicLookup }),
  ...(options.ca === undefined ? {} : { ca: [...rootCertificates, options.ca] }),
})

/** @throws PROVIDER_UNREACHABLE, ADDRESS_REFUSED */
export function connectTls(url: URL, options: ConnectOptions): Promise<TLSSocket> {
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const limitMs = options.connectTimeoutMs ?? defaultConnectTimeoutMs
  return new Promise((resolve, reject) => {
    const socket = connect({
      host,
      port: Number(url.port || 443),
      ALPNProtocols: ['h2', 'http/1.1'],
      ...tlsOptions(host, options),
    })
    const timer = setTimeout(() => socket.destroy(new Error(`no connection within ${limitMs} ms`)), limitMs)
    socket.once('secureConnect', () => {
      clearTimeout(timer)
      socket.off('error', fail)
      // A second look at where it really leads, whatever resolved the name.
      if (!options.allowPrivate && !isPublicAddress(socket.remoteAddress ?? '')) {
        socket.destroy()
        return reject(ADDRESS_REFUSED({ host }))
      }
      // Until whoever takes it listens itself, a reset must not end the process.
      socket.on('error', () => undefined)
      socket.setNoDelay(true)
      resolve(socket)
    })
    const fail = (error: Error): void => {
      clearTimeout(timer)
      reject(
        ADDRESS_REFUSED.is(error)
          ? error
          : PROVIDER_UNREACHABLE({ origin: url.origin, reason: error.message }, { cause: error }),
      )
    }
    socket.once('error', fail)
  })
}

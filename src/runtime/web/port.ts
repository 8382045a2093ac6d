import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { type BatonError, codeOf, messageOf } from '../../core/errors.ts'
import { PORT_UNAVAILABLE } from './errors.ts'

export interface ListenAddress {
  host: string
  /** 0 is any free one. */
  port: number
}

const reasons: Record<string, string> = {
  EADDRINUSE: 'another process does already',
  EACCES: 'this user may not',
  EADDRNOTAVAIL: 'this machine has no such address',
  ENOTFOUND: 'there is no such host',
}

export const portUnavailable = ({ host, port }: ListenAddress, error: unknown): BatonError =>
  PORT_UNAVAILABLE({ host, port, reason: reasons[codeOf(error) ?? ''] ?? messageOf(error) }, { cause: error })

/**
 * Whether one could listen there now: told before anything is started, and before a stranger who answers there is
 * taken for us.
 *
 * @returns the port, which is another than asked for when that was 0
 * @throws PORT_UNAVAILABLE
 */
export async function probePort(address: ListenAddress): Promise<number> {
  const server = createServer()
  try {
    server.listen(address.port, address.host)
    await once(server, 'listening')
    return (server.address() as AddressInfo).port
  } catch (error) {
    throw portUnavailable(address, error)
  } finally {
    server.close()
  }
}

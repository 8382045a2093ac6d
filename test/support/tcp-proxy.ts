import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import { atEndOfTest } from './processes.ts'

/** Which way nothing goes any more. */
export type Direction = 'both' | 'to-server' | 'to-client'

/**
 * Stands between a process and a store, and can fall silent without closing anything: to both sides the connection
 * looks open, as it does when a machine, a NAT or a firewall on the way forgets it.
 */
export interface TcpProxy {
  readonly port: number
  /** The store's URL, by way of the proxy. */
  through(url: string): string
  /** Connections that are open now forward nothing any more, for good or until `resume`; new ones work. */
  forget(direction?: Direction): void
  /** As `forget`, and new connections are accepted and forward nothing either. */
  stall(direction?: Direction): void
  /** Everything that is open goes on, with what has come meanwhile. */
  resume(): void
  /** Closes what is open, as a proxy that is replaced does; new connections work. */
  cut(): void
  /** Connections that are open on the side of the process. */
  readonly open: number
}

interface Pair {
  client: Socket
  server: Socket
  silent: Direction | undefined
}

/** Ends with the test. */
export async function startTcpProxy(toPort: number): Promise<TcpProxy> {
  const pairs = new Set<Pair>()
  let silentFromStart: Direction | undefined
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const pair: Pair = {
      client,
      server: connect({ port: toPort, host: '127.0.0.1', allowHalfOpen: true }),
      silent: silentFromStart,
    }
    pairs.add(pair)
    flow(pair)
    for (const side of [pair.client, pair.server]) {
      side.on('error', () => undefined)
      // Who is silent does not even tell that the other side is gone.
      side.on('close', () => pair.silent ?? end(pair))
    }
  })
  const end = (pair: Pair): void => {
    pairs.delete(pair)
    pair.client.destroy()
    pair.server.destroy()
  }
  const silence = (direction: Direction): void => {
    for (const pair of pairs) {
      pair.silent = direction
      flow(pair)
    }
  }
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  const cut = (): void => {
    silentFromStart = undefined
    for (const pair of pairs) end(pair)
  }
  atEndOfTest(() => {
    cut()
    server.close()
  })
  return {
    port,
    through: (url) => {
      const proxied = new URL(url)
      proxied.host = `127.0.0.1:${port}`
      return proxied.href
    },
    forget: (direction = 'both') => silence(direction),
    stall: (direction = 'both') => {
      silentFromStart = direction
      silence(direction)
    },
    resume: () => {
      silentFromStart = undefined
      for (const pair of pairs) {
        pair.silent = undefined
        if (pair.client.destroyed || pair.server.destroyed) end(pair)
        else flow(pair)
      }
    },
    cut,
    get open() {
      return [...pairs].filter(({ client }) => !client.destroyed).length
    },
  }
}

/** A side that is not read keeps what comes: the kernel acknowledges it, and the sender learns nothing. */
function flow({ client, server, silent }: Pair): void {
  const pass = (from: Socket, to: Socket, isSilent: boolean): void => {
    from.unpipe(to)
    if (isSilent) from.pause()
    else from.pipe(to)
  }
  pass(client, server, silent === 'both' || silent === 'to-server')
  pass(server, client, silent === 'both' || silent === 'to-client')
}

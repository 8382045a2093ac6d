import { Server as NetServer } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { Clock } from '../../core/clock.ts'
import { withLimit } from '../../core/lifecycle.ts'

/** How a server is left without cutting a request. Times in ms. */
export interface Farewell {
  /**
   * Waits until nobody opens new connections: load balancers have seen that we are not ready. To close the
   * listening socket earlier would reset connections that the kernel has taken and we have not.
   */
  waitUntilUnvisited(longestMs: number): Promise<void>
  /**
   * Stops listening, gives open connections a moment to send what is on its way, and lets requests finish.
   * @returns false when the time was up and the rest was cut
   */
  close(limitMs: number): Promise<boolean>
}

const leastMs = 500
const unvisitedMs = 300
const stepMs = 50
/** For what clients sent into connections that looked idle to us. */
const onItsWayMs = 300

export function createFarewell(server: FastifyInstance, clock: Clock): Farewell {
  const http = server.server
  let visitedAt = Number.NEGATIVE_INFINITY
  http.on('connection', () => {
    visitedAt = clock.monotonicMs()
  })

  return {
    waitUntilUnvisited: async (longestMs) => {
      const began = clock.monotonicMs()
      const isOver = (): boolean => {
        const now = clock.monotonicMs()
        if (now - began >= longestMs) return true
        return now - began >= leastMs && now - visitedAt >= unvisitedMs
      }
      while (!isOver()) await clock.sleep(stepMs)
    },
    close: async (limitMs) => {
      const began = clock.monotonicMs()
      if (http.listening) {
        // What came in during this turn of the event loop has been accepted by now; there is no later moment.
        await new Promise((resolve) => setImmediate(resolve))
        // http.Server's own `close` would also end idle connections, at once.
        NetServer.prototype.close.call(http)
        await clock.sleep(Math.min(onItsWayMs, limitMs / 4))
      }
      const closed = server.close()
      try {
        await withLimit(closed, Math.max(50, limitMs - (clock.monotonicMs() - began)))
        return true
      } catch {
        http.closeAllConnections()
        await closed
        return false
      }
    },
  }
}

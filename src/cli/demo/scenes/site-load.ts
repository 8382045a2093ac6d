import { randomBytes } from 'node:crypto'
import { messageOf } from '../../../core/errors.ts'
import type { WebClient } from '../../web-client.ts'
import type { Enqueued } from '../stage.ts'

/** What was accepted, by whichever site. */
export interface Accepted {
  jobs: string[]
  pushes: string[]
  /** By their sha256. */
  bodies: string[]
  /** The last one of each device. */
  states: Map<string, string>
}

export interface SiteLoad {
  accepted: Accepted
  /** How often a client has begun to write one of each. */
  rounds(): number
  /** Longest time in which nothing was accepted, ms. */
  longestPauseMs(): number
  /** @throws what a client was told that was no refusal of a closed site */
  stop(): Promise<void>
}

export const sitePhones = ['phone-1', 'phone-2', 'phone-3']
export const statePath = (phone: string): string => `/v1/devices/${phone}/states/devicedata/-/0`

/** Clients that write without a pause, and follow a refusal to the other site. Their phones must be there. */
export function startSiteLoad(one: WebClient, other: WebClient): SiteLoad {
  const accepted: Accepted = { jobs: [], pushes: [], bodies: [], states: new Map() }
  const faults: unknown[] = []
  let going = true
  let rounds = 0
  let lastAt = performance.now()
  let longestPauseMs = 0

  const client = async (phone: string): Promise<void> => {
    let site = one
    const send = async <T>(ask: (at: WebClient) => Promise<T>): Promise<T> => {
      for (;;) {
        try {
          const answer = await ask(site)
          longestPauseMs = Math.max(longestPauseMs, performance.now() - lastAt)
          lastAt = performance.now()
          return answer
        } catch (error) {
          if (!messageOf(error).includes('SITE_CLOSED')) throw error
          site = site === one ? other : one
          await pause(25)
        }
      }
    }
    const round = async (): Promise<void> => {
      const n = rounds++
      const job = { name: 'tally', payload: { scene: 'second-site', n } }
      accepted.jobs.push((await send((at) => at.call<Enqueued>('POST', '/v1/jobs', job))).id)
      const push = { to: { device: phone }, payload: { n } }
      accepted.pushes.push((await send((at) => at.call<Enqueued>('POST', '/v1/pushes', push))).id)
      const bytes = randomBytes(2_000)
      accepted.bodies.push((await send((at) => at.putBody(bytes))).id)
      const state = `state ${n}`
      await send((at) => at.put(statePath(phone), Buffer.from(state)))
      accepted.states.set(phone, state)
    }
    while (going) {
      await round()
      await pause(20)
    }
  }
  const clients = Promise.all(
    sitePhones.map((phone) => client(phone).catch((error: unknown) => void faults.push(error))),
  )
  return {
    accepted,
    rounds: () => rounds,
    longestPauseMs: () => longestPauseMs,
    stop: async () => {
      going = false
      await clients
      if (faults.length > 0) throw faults[0]
    },
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

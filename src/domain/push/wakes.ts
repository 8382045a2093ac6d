import { messageOf } from '../../core/errors.ts'
import type { Log } from '../../platform/log.ts'
import type { Subscription, WakeBus } from '../../platform/wake-bus.ts'

/** What a process says to the one that holds the listens of some devices. */
export type Wake =
  /** There are new rows for these devices. */
  | { kind: 'wake'; devices: string[] }
  /** These listens were replaced by newer ones elsewhere. */
  | { kind: 'replaced'; listens: string[] }

export interface Wakes {
  /** Tells a node. Never throws and needs not be waited for: what is lost is found by the next look at the rows. */
  send(node: string, wake: Wake): Promise<void>
  receive(node: string, onWake: (wake: Wake) => void): Promise<Subscription>
}

export interface WakesOptions {
  bus: WakeBus
  log: Log
}

/** NOTIFY carries less than 8,000 bytes. */
const maxBytes = 6_500

/** One channel a web process, so that a wake costs the process that it is for, and no other. */
export function createWakes({ bus, log }: WakesOptions): Wakes {
  const channelOf = (node: string): string => `push-${node}`

  const publish = async (node: string, text: string): Promise<void> => {
    try {
      await bus.publish(channelOf(node), text)
    } catch (error) {
      log.debug({ node, reason: messageOf(error) }, 'a wake was lost; the listen looks again by itself')
    }
  }

  return {
    send: async (node, wake) => {
      const [mark, words] = wake.kind === 'wake' ? ['w', wake.devices] : ['r', wake.listens]
      await Promise.all(chunksOf(words, maxBytes).map((chunk) => publish(node, mark + JSON.stringify(chunk))))
    },
    receive: (node, onWake) =>
      bus.subscribe(channelOf(node), (text) => {
        const words = JSON.parse(text.slice(1)) as string[]
        onWake(text.startsWith('w') ? { kind: 'wake', devices: words } : { kind: 'replaced', listens: words })
      }),
  }
}

/** Splits so that each part fits as JSON. */
function chunksOf(words: string[], limit: number): string[][] {
  const chunks: string[][] = []
  let current: string[] = []
  let size = 0
  for (const word of words) {
    const bytes = Buffer.byteLength(JSON.stringify(word)) + 1
    if (current.length > 0 && size + bytes > limit) {
      chunks.push(current)
      current = []
      size = 0
    }
    current.push(word)
    size += bytes
  }
  if (current.length > 0) chunks.push(current)
  return chunks
}

import type { Subscription } from '../wake-bus.ts'

/** Who listens in this process, and what the bus has to be told of it. */
export interface Channels {
  subscribe(channel: string, onText: (text: string) => void): Promise<Subscription>
  deliver(channel: string, text: string): void
  names(): string[]
}

export interface Feed {
  /** The first listener of a channel came. */
  open(channel: string): Promise<void>
  /** The last one went. */
  close(channel: string): Promise<void>
  onError(error: unknown): void
}

interface Channel {
  listeners: Set<(text: string) => void>
  opened: Promise<void>
}

export function createChannels(feed: Feed): Channels {
  const channels = new Map<string, Channel>()

  const openChannel = (name: string): Channel => {
    const channel: Channel = { listeners: new Set(), opened: feed.open(name) }
    channels.set(name, channel)
    return channel
  }
  const leave = async (name: string, channel: Channel, listener: (text: string) => void): Promise<void> => {
    channel.listeners.delete(listener)
    if (channel.listeners.size > 0 || channels.get(name) !== channel) return
    channels.delete(name)
    await feed.close(name)
    // Somebody came back while the bus was told that nobody is left.
    if (channels.has(name)) await feed.open(name)
  }

  return {
    subscribe: async (name, onText) => {
      // Its own function, so that the same callback may listen twice.
      const listener = (text: string): void => onText(text)
      const channel = channels.get(name) ?? openChannel(name)
      channel.listeners.add(listener)
      try {
        await channel.opened
      } catch (error) {
        channel.listeners.delete(listener)
        if (channels.get(name) === channel) channels.delete(name)
        throw error
      }
      return { unsubscribe: () => leave(name, channel, listener) }
    },
    deliver: (name, text) => {
      for (const listener of channels.get(name)?.listeners ?? []) {
        try {
          listener(text)
        } catch (error) {
          // One listener's fault is not the others'.
          feed.onError(error)
        }
      }
    },
    names: () => [...channels.keys()],
  }
}

/** Longest text, bytes: what NOTIFY carries less the name of the channel. */
const maxBytes = 7_000

export function assertShort(text: string): void {
  const bytes = Buffer.byteLength(text)
  if (bytes > maxBytes) throw new RangeError(`a wake of ${bytes} bytes: it may have ${maxBytes}`)
}

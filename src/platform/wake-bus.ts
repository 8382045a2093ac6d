/**
 * Says "look now" to every process of the cluster. A wake may be lost: whoever needs to know re-reads rows from
 * time to time, and after it has subscribed. Two implementations stand in wake-buses/: Redis pub/sub and
 * Postgres LISTEN/NOTIFY; one suite (test/contracts/wake-bus.ts) is run against both.
 */
export interface WakeBus {
  /**
   * Sends a short text (under 7,000 bytes, what NOTIFY carries) to all who listen on the channel, this process
   * included. Never hangs while the bus is away: it throws, or the wake is lost.
   */
  publish(channel: string, text: string): Promise<void>
  /** Resolves when the subscription stands: what is published from then on arrives, as long as the bus lives. */
  subscribe(channel: string, onText: (text: string) => void): Promise<Subscription>
  /** Called after the connection was lost and restored: wakes in between are lost, so re-read your rows. */
  onRestored(callback: () => void): void
  close(): Promise<void>
}

export interface Subscription {
  unsubscribe(): Promise<void>
}

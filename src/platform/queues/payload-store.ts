export interface StoreWish {
  /** A single copy is enough where there can be no second one now; it follows by itself. Told when it came to that. */
  onSingleCopy(): void
}

/**
 * Where payloads lie that are too large for a row. The queue engine and the ledger then carry a reference; handlers
 * never see it. Whoever composes a process brings the implementation (src/cli/compose/payloads.ts).
 */
export interface PayloadStore {
  /**
   * Keeps a text durably; asked again with the same text, it may answer the same. It must need no connection that a
   * caller within a transaction could hold, or callers would wait for each other.
   *
   * @param wish without one it is kept in as many places as it always is, or not at all
   * @returns its reference: 64 lower-case hex digits. Undefined when it cannot be kept there now, soon enough
   */
  store(json: string, wish?: StoreWish): Promise<string | undefined>
  /** @throws PAYLOAD_UNAVAILABLE when it cannot be read now, PAYLOAD_LOST when it never will be */
  load(reference: string, signal?: AbortSignal): Promise<string>
}

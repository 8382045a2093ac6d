/** A way over which a device is reached while it does not listen. */
export interface Transport {
  kind: TransportKind
  /** Endpoint, token or URL: what the provider knows the device by. */
  address: string
  /** Keys and whatever else the kind needs. Never logged. */
  options: Record<string, string>
}

export type TransportKind = 'webpush' | 'apns' | 'fcm' | 'webhook' | 'stub'

/** A transport as it stands in its row. */
export interface StoredTransport extends Transport {
  /** 0 is the preferred one. */
  position: number
  /** As Postgres writes it, to the microsecond: with the address it tells whether it is still the same. */
  registeredAt: string
}

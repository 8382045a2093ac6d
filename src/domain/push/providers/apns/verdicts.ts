/** What a reason of Apple's means to us. */
export type ApnsVerdict =
  /** Of this token or message alone: another try will not be taken either. */
  | 'rejected'
  /** We sent what nobody should: as rejected, and somebody has to look. */
  | 'our-fault'
  | 'gone'
  | 'device-limited'
  /** The provider token is too old. */
  | 'token'
  /** The provider token changes too often. */
  | 'token-updates'
  /** Key, team or certificate are not taken: nothing will be until somebody mends it. */
  | 'credentials'
  /** The connection has had its time: at once over another. */
  | 'reconnect'
  /** Apple is in trouble. */
  | 'trouble'

/**
 * From Apple's "Handling notification responses from APNs". BadDeviceToken is not "gone": a good token of the
 * other environment, or of an app whose topic is wrong here, gets the same answer.
 */
const reasons: Record<number, Record<string, ApnsVerdict>> = {
  400: {
    BadDeviceToken: 'rejected',
    DeviceTokenNotForTopic: 'rejected',
    TopicDisallowed: 'our-fault',
    IdleTimeout: 'reconnect',
  },
  403: { ExpiredProviderToken: 'token', InvalidProviderToken: 'credentials' },
  410: { Unregistered: 'gone', ExpiredToken: 'gone' },
  429: { TooManyRequests: 'device-limited', TooManyProviderTokenUpdates: 'token-updates' },
  503: { Shutdown: 'reconnect' },
}

/** What a status means whose reason says nothing else. */
const statuses: Record<number, ApnsVerdict> = {
  400: 'our-fault',
  403: 'credentials',
  404: 'our-fault',
  405: 'our-fault',
  408: 'trouble',
  410: 'gone',
  413: 'our-fault',
  429: 'device-limited',
}

export const apnsVerdict = (status: number, reason: string): ApnsVerdict =>
  reasons[status]?.[reason] ?? statuses[status] ?? (status >= 500 ? 'trouble' : 'rejected')

/**
 * How long `Retry-After` asks to wait, ms: seconds or an HTTP date (RFC 9110, 10.2.3). A date is compared with the
 * answer's own `Date` where there is one, so that neither clock needs to be right.
 */
export function retryAfterMs(headers: Readonly<Record<string, string>>, now: number): number | undefined {
  const value = headers['retry-after']?.trim()
  if (!value) return undefined
  if (/^\d{1,9}$/.test(value)) return Number(value) * 1_000
  const at = Date.parse(value)
  if (Number.isNaN(at)) return undefined
  const saidAt = Date.parse(headers['date'] ?? '')
  return Math.max(0, at - (Number.isNaN(saidAt) ? now : saidAt))
}

import { createHash } from 'node:crypto'
import { keyText } from './state-key.ts'
import type { DeviceDigests, DeviceSum, Digest } from './store.ts'

/**
 * Of all states of a device: two devices with the same digest have the same states. sha256 of a line for each of them,
 * `<keyText> <size> <sha256>`, sorted by bytes.
 */
export function digestOf(digests: Digest[]): string {
  const lines = digests.map(({ key, size, sha256 }) => `${keyText(key)} ${size} ${sha256}\n`)
  return createHash('sha256').update(lines.sort().join('')).digest('hex')
}

export const sumOf = ({ fingerprint, digests }: DeviceDigests): DeviceSum => ({
  fingerprint,
  digest: digestOf(digests),
})

/** The same in SQL, over rows with these expressions. */
export function digestSql(row: { type: string; uuid: string; counter: string; data: string }): string {
  const line = `coalesce(nullif(${row.type}, ''), 'def') || ' ' || coalesce(nullif(${row.uuid}, ''), '-') || ' '
    || ${row.counter} || ' ' || octet_length(${row.data}) || ' ' || encode(sha256(${row.data}), 'hex') || E'\\n'`
  return `encode(sha256(convert_to(string_agg(${line}, '' ORDER BY (${line}) COLLATE "C"), 'UTF8')), 'hex')`
}

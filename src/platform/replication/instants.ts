/**
 * SQL for an instant as text: ISO 8601 in UTC, to the microsecond, without trailing zeros. `to_json` writes it so
 * whatever DateStyle and TimeZone a session has; `infinity` and null stay what they are.
 */
export const instantText = (column: string): string => `to_json(${column} AT TIME ZONE 'UTC') #>> '{}'`

/** SQL for the instant that such a text means, exactly. */
export const instantOf = (text: string): string => `(${text}::timestamp AT TIME ZONE 'UTC')`

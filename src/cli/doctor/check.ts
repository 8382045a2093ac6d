/** What a look at one thing found. */
export interface Finding {
  /** What was looked at. */
  name: string
  /** A fault makes `doctor` end with 1; a warning does not. */
  state: 'ok' | 'warning' | 'fault'
  found: string
  /** What to do; absent when there is nothing to do. */
  remedy?: string
}

export const ok = (name: string, found: string): Finding => ({ name, state: 'ok', found })

export const warning = (name: string, found: string, remedy: string): Finding => ({
  name,
  state: 'warning',
  found,
  remedy,
})

export const fault = (name: string, found: string, remedy: string): Finding => ({
  name,
  state: 'fault',
  found,
  remedy,
})

/** Clocks may differ by this much before somebody should look, ms. */
const tolerableSkewMs = 2_000

/** Compares a server's clock with ours, given when we asked and when the answer came. */
export function clockSkew(name: string, theirsMs: number, askedMs: number, answeredMs: number): Finding {
  const skewMs = Math.round(theirsMs - (askedMs + answeredMs) / 2)
  const found = `differs by ${skewMs} ms from this machine's`
  return Math.abs(skewMs) <= tolerableSkewMs
    ? ok(name, found)
    : warning(name, found, 'Let both machines keep time by NTP: delayed entries would come early or late.')
}

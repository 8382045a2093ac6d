import type { Clock } from '../../core/clock.ts'

/**
 * Payloads that listens wait for since no store gives them. However many listens wait, a process asks for a few
 * payloads each second: those who wait for them are told at once when their stores are back.
 */
export interface HeldPayloads {
  /** @returns what takes the wish back */
  hold(payload: string, onReadable: () => void): () => void
}

export interface HeldPayloadsOptions {
  /** Whether asking for it again is worth while. */
  isReadable(payload: string): Promise<boolean>
  clock: Clock
  /** Between two rounds of asking, ms; a second unless said. */
  everyMs?: number
}

/** Asked for at once. As long as one of them is there, the next ones are asked for. */
const atOnce = 4

export function createHeldPayloads({
  isReadable,
  clock,
  everyMs = 1_000,
}: HeldPayloadsOptions): HeldPayloads {
  const waiting = new Map<string, Set<() => void>>()
  let asking: Promise<void> | undefined

  const ask = async (payload: string): Promise<boolean> => {
    const readable = await isReadable(payload)
    const told = waiting.get(payload)
    waiting.delete(payload)
    if (!told) return readable
    if (readable) for (const tell of told) tell()
    // Behind the others: it may lie elsewhere than they do.
    else waiting.set(payload, told)
    return readable
  }

  const askAll = async (): Promise<void> => {
    while (waiting.size > 0) {
      await clock.sleep(everyMs)
      // Not those that are held again meanwhile: they would be asked for as fast as the stores say no.
      const round = [...waiting.keys()]
      for (let from = 0; from < round.length; from += atOnce) {
        const found = await Promise.all(round.slice(from, from + atOnce).map(ask))
        if (!found.includes(true)) break
      }
    }
    asking = undefined
  }

  return {
    hold: (payload, onReadable) => {
      const tellers = waiting.get(payload) ?? new Set()
      waiting.set(payload, tellers.add(onReadable))
      asking ??= askAll()
      return () => {
        if (tellers.delete(onReadable) && tellers.size === 0 && waiting.get(payload) === tellers)
          waiting.delete(payload)
      }
    },
  }
}

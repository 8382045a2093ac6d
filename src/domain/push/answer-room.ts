/**
 * Room for the payloads of answers that are on their way out, of all listens of a process together. Without it a
 * thousand devices that come back at once, each for 4 MiB, would take 4 GB at once.
 */
export interface AnswerRoom {
  /**
   * Waits for its turn, so long at most. Small answers need no turn, and one that is larger than all room gets in alone.
   * @returns what gives it back, any number of times; undefined when there was none in time
   */
  take(bytes: number, waitMs: number): Promise<(() => void) | undefined>
}

/** Bytes of payloads on their way out; in memory they take two to three times as much. */
const defaultRoom = 67_108_864
/** An answer with less is no matter: the listens themselves take as much. */
const small = 65_536

export function createAnswerRoom(room: number = defaultRoom): AnswerRoom {
  const waiters = new Set<{ bytes: number; enter(): void }>()
  let taken = 0
  const fits = (bytes: number): boolean => taken === 0 || taken + bytes <= room
  const giver = (bytes: number): (() => void) => {
    let given = false
    return () => {
      if (given) return
      given = true
      taken -= bytes
      admit()
    }
  }
  const admit = (): void => {
    for (const waiter of waiters) {
      // In turn: a large one would otherwise wait for ever behind smaller ones.
      if (!fits(waiter.bytes)) return
      waiters.delete(waiter)
      taken += waiter.bytes
      waiter.enter()
    }
  }
  return {
    take: async (bytes, waitMs) => {
      if (bytes <= small) return () => undefined
      if (waiters.size === 0 && fits(bytes)) {
        taken += bytes
        return giver(bytes)
      }
      const entered = await new Promise<boolean>((resolve) => {
        const timer = setTimeout(() => {
          waiters.delete(waiter)
          // Whoever stands behind it may be smaller.
          admit()
          resolve(false)
        }, waitMs)
        const enter = (): void => {
          clearTimeout(timer)
          resolve(true)
        }
        const waiter = { bytes, enter }
        waiters.add(waiter)
      })
      return entered ? giver(bytes) : undefined
    },
  }
}

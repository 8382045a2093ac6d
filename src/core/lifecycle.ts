import { messageOf } from './errors.ts'

/** Something that runs until it is stopped. Both calls may be repeated, and stop may come without start. */
export interface Service {
  start(): Promise<void>
  stop(): Promise<void>
}

/** What to undo, in reverse order of how it was done. */
export interface Releasers {
  add(name: string, release: () => Promise<void> | void): void
  /** Runs every releaser once, also when one throws; each has its own limit so that none holds up the rest. */
  release(): Promise<void>
}

export function createReleasers(onError: (message: string) => void, limitMs = 5_000): Releasers {
  const stack: { name: string; release: () => Promise<void> | void }[] = []
  let releasing: Promise<void> | undefined

  const releaseAll = async (): Promise<void> => {
    for (let next = stack.pop(); next; next = stack.pop()) {
      try {
        await withLimit(Promise.resolve(next.release()), limitMs)
      } catch (error) {
        onError(`${next.name} did not close: ${messageOf(error)}`)
      }
    }
  }

  return {
    add: (name, release) => void stack.push({ name, release }),
    release: () => (releasing ??= releaseAll()),
  }
}

/** Settles as `work` does, or rejects after `ms`. The work itself goes on: give it a signal to end it. */
export async function withLimit<T>(work: Promise<T>, ms: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${ms} ms`)), ms)
  })
  try {
    return await Promise.race([work, limit])
  } finally {
    clearTimeout(timer)
  }
}

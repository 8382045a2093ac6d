import type { Clock } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { Log } from '../../platform/log.ts'
import type { OpenListen } from './listen.ts'
import type { ListenRows } from './listen-rows.ts'
import type { Wake } from './wakes.ts'

/** The open listens of this process, by id and by device. */
export interface OpenListens {
  readonly size: number
  add(listen: OpenListen): void
  /** False when it was not there any more. */
  remove(listen: OpenListen): boolean
  get(id: string): OpenListen | undefined
  /** In the order in which they came; those that come meanwhile are visited too. */
  all(): MapIterator<OpenListen>
  tell(wake: Wake): void
}

export function createOpenListens(): OpenListens {
  const listens = new Map<string, OpenListen>()
  const byDevice = createIndex<OpenListen>()
  return {
    get size() {
      return listens.size
    },
    add: (listen) => {
      listens.set(listen.id, listen)
      for (const device of listen.devices) byDevice.add(device, listen)
    },
    remove: (listen) => {
      for (const device of listen.devices) byDevice.remove(device, listen)
      return listens.delete(listen.id)
    },
    get: (id) => listens.get(id),
    all: () => listens.values(),
    tell: (wake) => {
      if (wake.kind === 'replaced') for (const id of wake.listens) listens.get(id)?.replace()
      else for (const device of wake.devices) for (const listen of byDevice.get(device)) listen.wake(device)
    },
  }
}

/** A wake may be lost; this often a listen is looked at regardless, ms. */
const lookEveryMs = 10_000
/** Each fifth of a second: enough for the 25,000 listens that a process holds at most. */
const lookBatch = 512

export interface Looking {
  listens: OpenListens
  rows: ListenRows
  clock: Clock
  log: Log
}

/** Looks at each listen every ten seconds, a few at a time. */
export function startLooking({ listens, rows, clock, log }: Looking): { stop(): void } {
  let busy = false
  // Goes on where the last look ended: from the beginning, those at the end would have no turn while all are due.
  let turn = listens.all()
  const lookOnce = async (): Promise<void> => {
    const now = clock.monotonicMs()
    const stale: OpenListen[] = []
    while (stale.length < lookBatch) {
      const { value: listen, done } = turn.next()
      if (done) {
        turn = listens.all()
        break
      }
      if (now - listen.lookedAt < lookEveryMs || !listen.registered) continue
      stale.push(listen)
      listen.lookedAt = now
    }
    if (stale.length === 0) return
    const asked = stale.flatMap((listen) => listen.devices.map((device) => ({ device, listen: listen.id })))
    const found = new Set(await rows.look(asked))
    for (const listen of stale)
      for (const device of listen.devices) if (found.has(device)) listen.wake(device)
  }
  const timer = setInterval(() => {
    if (busy || listens.size === 0) return
    busy = true
    lookOnce()
      .catch((error: unknown) =>
        log.warn({ reason: messageOf(error) }, 'open listens could not be looked at'),
      )
      .finally(() => {
        busy = false
      })
  }, 200)
  timer.unref()
  return { stop: () => clearInterval(timer) }
}

interface Index<Value> {
  add(key: string, value: Value): void
  remove(key: string, value: Value): void
  get(key: string): Iterable<Value>
}

/** A map to several values that takes no set where there is only one, which is nearly always. */
function createIndex<Value extends object>(): Index<Value> {
  const entries = new Map<string, Value | Set<Value>>()
  return {
    add: (key, value) => {
      const present = entries.get(key)
      if (present === undefined) entries.set(key, value)
      else if (present instanceof Set) present.add(value)
      else entries.set(key, new Set([present, value]))
    },
    remove: (key, value) => {
      const present = entries.get(key)
      if (present === value) entries.delete(key)
      else if (present instanceof Set && present.delete(value) && present.size === 0) entries.delete(key)
    },
    get: (key) => {
      const present = entries.get(key)
      if (present === undefined) return []
      return present instanceof Set ? [...present] : [present]
    },
  }
}

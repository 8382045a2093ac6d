import { randomUUID } from 'node:crypto'
import { setTimeout as pause } from 'node:timers/promises'
import type { Random } from './random.ts'
import { key, type Site } from './site.ts'

/** What was asked for, and answered with 202. */
export interface Accepted {
  id: string
  name: string
  n: number
  steps?: number
  cancelled?: boolean
  retried?: boolean
}

export interface Load {
  accepted: Map<string, Accepted>
  /** Answers that contradict the request. */
  breaches: string[]
  requests: number
  refused: number
  /** No more is sent; resolves when what was sent is answered. */
  end(): Promise<void>
}

interface Wanted {
  name: string
  payload: { n: number; count?: number; ms?: number }
  delayMs?: number
  priority?: number
}

const senders = 4

/** Sends as a careful client does: what was not answered is sent again, elsewhere, with the same Idempotency-Key. */
export function startLoad(site: Site, random: Random): Load {
  const ended = new AbortController()
  let n = 0
  const load: Load = {
    accepted: new Map(),
    breaches: [],
    requests: 0,
    refused: 0,
    end: async () => {
      ended.abort()
      await Promise.all(running)
    },
  }
  const send = async (mine: Random): Promise<void> => {
    while (!ended.signal.aborted) {
      const wanted = Array.from({ length: mine.between(1, 12) }, () => wantedJob(mine, n++))
      await sendUntilTaken(site, load, wanted, mine)
      await interfere(site, load, mine)
      await pause(mine.between(20, 200))
    }
  }
  const running = Array.from({ length: senders }, () => send(random.fork()))
  return load
}

function wantedJob(random: Random, n: number): Wanted {
  const name = random.pick([
    'quick',
    'quick',
    'effect',
    'effect',
    'effect',
    'steps',
    'sleeper',
    'stubborn',
    'flaky',
    'doomed',
  ])
  const drawn = random.chance(0.01) ? 'crash' : name
  return {
    name: drawn,
    payload: {
      n,
      ...(drawn === 'steps' ? { count: random.between(3, 30) } : {}),
      ...(drawn === 'sleeper' || drawn === 'stubborn' ? { ms: random.between(10, 800) } : {}),
    },
    ...(random.chance(0.15) ? { delayMs: random.between(1, 4_000) } : {}),
    ...(random.chance(0.1) ? { priority: random.between(1, 5) } : {}),
  }
}

async function sendUntilTaken(site: Site, load: Load, wanted: Wanted[], random: Random): Promise<void> {
  const idempotencyKey = randomUUID()
  const body = JSON.stringify(wanted)
  for (;;) {
    const answer = await ask(site, random, 'POST /v1/jobs', { body, idempotencyKey })
    load.requests++
    if (answer?.status === 202)
      return take(load, wanted, answer.body as { jobs: { id: string; name: string }[] })
    load.refused++
    if (answer && answer.status < 500) {
      load.breaches.push(`a good request was answered ${answer.status}: ${JSON.stringify(answer.body)}`)
      return
    }
    await pause(random.between(50, 300))
  }
}

function take(load: Load, wanted: Wanted[], { jobs }: { jobs: { id: string; name: string }[] }): void {
  if (jobs.length !== wanted.length) {
    load.breaches.push(`${wanted.length} jobs were sent and ${jobs.length} answered`)
  }
  for (const [index, { id, name }] of jobs.entries()) {
    const { payload, name: asked } = wanted[index] ?? { payload: { n: -1 } }
    if (name !== asked) load.breaches.push(`asked for ${asked}, and was answered ${name}`)
    if (load.accepted.has(id)) load.breaches.push(`two jobs were answered with the id ${id}`)
    load.accepted.set(id, { id, name, n: payload.n, ...(payload.count ? { steps: payload.count } : {}) })
  }
}

/** Reads, cancels and retries now and then. */
async function interfere(site: Site, load: Load, random: Random): Promise<void> {
  const all = [...load.accepted.values()]
  const job = random.pick(all.slice(-60))
  if (!job) return
  const seen = await ask(site, random, `GET /v1/jobs/${job.id}`)
  if (seen?.status === 200) {
    const { id, name } = seen.body as { id: string; name: string }
    if (id !== job.id || name !== job.name) load.breaches.push(`asked for ${job.id}, and was shown ${id}`)
  } else if (seen && seen.status < 500)
    load.breaches.push(`the accepted job ${job.id} is answered ${seen.status}`)
  if (random.chance(0.1)) {
    // Marked before: a cancel whose answer is lost may have been done.
    job.cancelled = true
    await ask(site, random, `DELETE /v1/jobs/${job.id}`)
  }
  if (random.chance(0.1)) {
    const failed = all.find((each) => each.name === 'doomed' && !each.retried && !each.cancelled)
    if (!failed) return
    failed.retried = true
    await ask(site, random, `POST /v1/jobs/${failed.id}/retry`)
  }
}

interface Sent {
  body?: string
  idempotencyKey?: string
}

/** Undefined when there was no answer. */
async function ask(
  site: Site,
  random: Random,
  what: string,
  { body, idempotencyKey }: Sent = {},
): Promise<{ status: number; body: unknown } | undefined> {
  const [method = '', path = ''] = what.split(' ')
  try {
    const response = await fetch(`${random.pick(site.webs).address}${path}`, {
      method,
      signal: AbortSignal.timeout(20_000),
      ...(body === undefined ? {} : { body }),
      headers: {
        authorization: `Bearer ${key}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(idempotencyKey ? { 'idempotency-key': idempotencyKey } : {}),
      },
    })
    return { status: response.status, body: await response.json() }
  } catch {
    return undefined
  }
}

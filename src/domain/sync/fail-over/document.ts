import { toIso } from '../../../core/clock.ts'
import type { FailOverView } from './fail-overs.ts'
import type { FailOver } from './rows.ts'

/** A fail-over as people and other programs see it. */
export interface FailOverDocument {
  id: string
  mode: FailOver['mode']
  to: string
  phase: FailOver['phase']
  epoch: number | null
  /** Positions by shard: of the heads when it closed, or of what the site that opened had. */
  heads: number[] | null
  error: FailOver['error']
  report: FailOver['report']
  /** Phases in their order, with how long each took, ms. */
  log: { phase: FailOver['phase']; at: string; ms?: number }[]
  /** From the refusal of writes to its end here, ms; undefined when none were refused. */
  refusedMs?: number
  actor: string
  createdAt: string
  finishedAt: string | null
}

export interface FailOverViewDocument {
  site: FailOverView['site']
  /** The one under way, else the last one. */
  failOver: FailOverDocument | null
  /** Newest first. */
  history: FailOverDocument[]
}

export function documentOf(failOver: FailOver): FailOverDocument {
  const { createdAt, finishedAt, target } = failOver
  const refusedMs = refusedFor(failOver)
  return {
    id: failOver.id,
    mode: failOver.mode,
    to: target,
    phase: failOver.phase,
    epoch: failOver.epoch,
    heads: failOver.heads,
    error: failOver.error,
    report: failOver.report,
    log: timed(failOver),
    ...(refusedMs === undefined ? {} : { refusedMs }),
    actor: failOver.actor,
    createdAt: toIso(createdAt.getTime()),
    finishedAt: finishedAt && toIso(finishedAt.getTime()),
  }
}

export const viewDocumentOf = ({ site, current, history }: FailOverView): FailOverViewDocument => ({
  site,
  failOver: current ? documentOf(current) : null,
  history: history.map(documentOf),
})

function timed({ log, finishedAt, inPhaseMs }: FailOver): FailOverDocument['log'] {
  return log.map(({ phase, at }, index) => {
    const next = log[index + 1]
    if (next) return { phase, at, ms: Date.parse(next.at) - Date.parse(at) }
    return finishedAt ? { phase, at } : { phase, at, ms: Math.round(inPhaseMs) }
  })
}

/** Of one that drained. One that is refused, or begun by the other site, refused nobody here. */
function refusedFor({ log, finishedAt, inPhaseMs }: FailOver): number | undefined {
  const began = log.find(({ phase }) => phase === 'draining')
  const last = log.at(-1)
  if (!began || !last) return undefined
  const ms = Date.parse(last.at) - Date.parse(began.at)
  return Math.round(finishedAt ? ms : ms + inPhaseMs)
}

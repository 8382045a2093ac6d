import { addTotals, type Totals } from '../metric-totals.ts'
import type { Metrics } from '../metrics.ts'
import type { Queryable } from '../postgres/postgres.ts'
import { deadMs, type NodeChild } from './node-heartbeat.ts'

/** What a worker counts, in its row of `nodes`. */
export interface NodeMetrics {
  totals: Totals
  /** Places whose next fork is put off. */
  crashLoops: number
}

/** The sum of what a worker's processes have counted. It only grows: what a child told stays when the child dies. */
export interface NodeMeter {
  /** What a child counted since it last told. */
  add(increments: Totals): void
  totals(): Totals
}

/** @param metrics those of the master itself, which count too */
export function createNodeMeter(metrics: Pick<Metrics, 'take'>): NodeMeter {
  const sum: Totals = {}
  return {
    add: (increments) => addTotals(sum, increments),
    totals: () => {
      addTotals(sum, metrics.take())
      return sum
    },
  }
}

/** A row that is larger than this goes without its histograms, characters. */
const maxLength = 65_536

/** As JSON for the row. Every label has few values, so it is small; a site of very many jobs keeps its counters. */
export function encodeNodeMetrics(metrics: NodeMetrics): string {
  const text = JSON.stringify(metrics)
  if (text.length <= maxLength) return text
  const counters = Object.entries(metrics.totals).filter(([name]) => name.endsWith('_total'))
  return JSON.stringify({ ...metrics, totals: Object.fromEntries(counters) })
}

/** A process of the site, with what it counted. */
export interface MeasuredNode {
  id: string
  host: string
  kind: string
  state: string
  dead: boolean
  children: NodeChild[]
  metrics: NodeMetrics | undefined
}

interface Row {
  id: string
  host: string
  kind: string
  state: string
  dead: boolean
  children: NodeChild[] | null
  metrics: NodeMetrics | null
}

/** So long after its end a node's counters are still shown: who asks now and then should have its last ones. */
const shownFor = '10 minutes'
const maxNodes = 500

/** Those that live, and those that died of late. */
export async function readNodeMetrics(postgres: Queryable): Promise<MeasuredNode[]> {
  const { rows } = await postgres.query<Row & Record<string, unknown>>(
    `SELECT id, host, kind, state, children, metrics,
       heartbeat_at < now() - interval '${deadMs} milliseconds' AS dead
     FROM nodes WHERE heartbeat_at > now() - interval '${shownFor}'
     ORDER BY heartbeat_at DESC LIMIT ${maxNodes}`,
  )
  return rows.map(({ children, metrics, ...row }) => ({
    ...row,
    children: children ?? [],
    metrics: metrics ?? undefined,
  }))
}

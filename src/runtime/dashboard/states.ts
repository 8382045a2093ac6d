import type { JobState } from '../../platform/queues/ledger.ts'
import { type Html, html } from './html.ts'

export const jobStates: readonly JobState[] = [
  'waiting',
  'delayed',
  'active',
  'completed',
  'failed',
  'cancelled',
]

export const isJobState = (text: string | undefined): text is JobState =>
  jobStates.some((state) => state === text)

/** A state as a word and a shape of its own, so that nobody needs the colour. */
export function stateMark(state: string): Html {
  const shape = shapes[state] ?? shapes['unknown']
  const tone = tones[state] ?? 'plain'
  return html`<span class="state state-${tone}"><svg viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">${shape}</svg>${state}</span>`
}

const ring = html`<circle cx="6" cy="6" r="4.5" fill="none" stroke="currentColor" stroke-width="1.5"/>`
const disc = html`<circle cx="6" cy="6" r="4.5" fill="currentColor"/>`
const clockFace = html`${ring}<path d="M6 3.5V6l1.8 1.2" fill="none" stroke="currentColor" stroke-width="1.3"/>`
const triangle = html`<path d="M2.5 1.5 11 6l-8.5 4.5z" fill="currentColor"/>`
const check = html`<path d="M1.5 6.5 4.7 10l6-8" fill="none" stroke="currentColor" stroke-width="2"/>`
const cross = html`<path d="M2 2l8 8M10 2l-8 8" fill="none" stroke="currentColor" stroke-width="2"/>`
const barred = html`${ring}<path d="M2.8 9.2 9.2 2.8" stroke="currentColor" stroke-width="1.5"/>`
const pause = html`<path d="M3 1.5h2v9H3zM7 1.5h2v9H7z" fill="currentColor"/>`
const square = html`<path d="M2 2h8v8H2z" fill="none" stroke="currentColor" stroke-width="1.5"/>`

const shapes: Record<string, Html> = {
  waiting: ring,
  delayed: clockFace,
  active: triangle,
  running: triangle,
  completed: check,
  done: check,
  failed: cross,
  cancelled: barred,
  stopped: square,
  dead: cross,
  'not reachable': cross,
  reachable: check,
  up: disc,
  ready: disc,
  starting: clockFace,
  quiet: pause,
  stopping: square,
  valid: check,
  revoked: barred,
  pending: ring,
  delivered: disc,
  due: clockFace,
  sending: triangle,
  sent: disc,
  undeliverable: cross,
  confirmed: check,
  expired: barred,
  withdrawn: barred,
  replaced: square,
  alive: disc,
  overdue: cross,
  free: check,
  held: pause,
  scanning: triangle,
  scanned: check,
  copying: triangle,
  'cutting-over': triangle,
  watching: clockFace,
  'rolling-back': triangle,
  'rolled-back': barred,
  paused: pause,
  open: disc,
  closed: barred,
  storm: cross,
  'not moved': cross,
  ok: disc,
  away: cross,
  resting: pause,
  silent: cross,
  'not configured': cross,
  draining: triangle,
  lacking: clockFace,
  lost: cross,
  planted: clockFace,
  found: check,
  'not done': cross,
  standby: pause,
  preflight: clockFace,
  flushing: triangle,
  promoting: triangle,
  demoting: triangle,
  refused: barred,
  aborted: barred,
  unknown: square,
}

const tones: Record<string, string> = {
  active: 'busy',
  running: 'busy',
  completed: 'good',
  done: 'good',
  up: 'good',
  ready: 'good',
  reachable: 'good',
  valid: 'good',
  failed: 'bad',
  dead: 'bad',
  'not reachable': 'bad',
  copying: 'busy',
  scanning: 'busy',
  'cutting-over': 'busy',
  'rolling-back': 'busy',
  watching: 'calm',
  paused: 'calm',
  open: 'good',
  closed: 'bad',
  storm: 'bad',
  'not moved': 'bad',
  ok: 'good',
  away: 'bad',
  resting: 'bad',
  silent: 'bad',
  'not configured': 'bad',
  draining: 'busy',
  standby: 'calm',
  flushing: 'busy',
  promoting: 'busy',
  demoting: 'busy',
  refused: 'bad',
  aborted: 'bad',
  lacking: 'calm',
  lost: 'bad',
  planted: 'calm',
  found: 'good',
  'not done': 'bad',
  confirmed: 'good',
  alive: 'good',
  free: 'good',
  sending: 'busy',
  undeliverable: 'bad',
  overdue: 'bad',
  due: 'calm',
  held: 'calm',
  delayed: 'calm',
  quiet: 'calm',
  starting: 'calm',
}

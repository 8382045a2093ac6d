/** When each phase of a stop ends, ms after the first signal. */
export interface StopPlan {
  /** Until here the children drain. */
  interruptMs: number
  /** Until here interrupted jobs are handed back; then SIGKILL. */
  killMs: number
  /** Until here the shutdown hooks may run. */
  hooksMs: number
  /** Here the process ends, whatever is going on. */
  exitMs: number
}

/** Below this the phases shrink in proportion: their lengths were made for a platform's 30 s. */
const fullMs = 25_000

/** The phases of docs/protocols/worker-stop.md for a process that must be gone after `shutdownMs`. */
export function planStop(shutdownMs: number): StopPlan {
  const scale = Math.min(1, shutdownMs / fullMs)
  return {
    interruptMs: shutdownMs - 9_000 * scale,
    killMs: shutdownMs - 5_000 * scale,
    hooksMs: shutdownMs - 1_200 * scale,
    exitMs: shutdownMs - 800 * scale,
  }
}

/** The same stop when the operator asks for it to be fast `elapsedMs` after the first signal. Never later than before. */
export function hasten(plan: StopPlan, elapsedMs: number): StopPlan {
  const earlier = Math.max(0, plan.interruptMs - elapsedMs)
  return {
    interruptMs: plan.interruptMs - earlier,
    killMs: plan.killMs - earlier,
    hooksMs: plan.hooksMs - earlier,
    exitMs: plan.exitMs - earlier,
  }
}

/** How an interruption of `graceMs` is divided: the rest is for closing, so that the child is gone before the kill. */
export const divideGrace = (graceMs: number): { obeyMs: number; handBackMs: number } => ({
  // Handlers obey their signal, or are left behind after it.
  obeyMs: Math.round(graceMs * 0.5),
  // Twice: the rows, then the entries.
  handBackMs: Math.round(graceMs * 0.15),
})

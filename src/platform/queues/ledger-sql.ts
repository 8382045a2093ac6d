/** A runner whose node was not heard of for longer is taken for dead, ms. */
export const aliveWithinMs = 4_000
/** A job that took its process down so often is set aside. */
export const poisonAt = 5
/** Told at the commit of rows that wait for the reconciler. */
export const unqueuedChannel = 'baton_unqueued'

/** Whether the holder of the row `j` of jobs still lives, by the clock of the database. */
export const isAlive = `EXISTS (SELECT FROM nodes n
  WHERE j.runner = ANY(n.runners) AND n.heartbeat_at > now() - interval '${aliveWithinMs} milliseconds')`

const isPoison = `j.crashes + 1 >= ${poisonAt}`
const poisonText = `The job took its process down ${poisonAt} times and was set aside. Retry it by hand once the cause is known.`

/** Step 6, for rows `j` whose holder was ended on purpose. */
export const clearedAsInterruption = `
  run_token = NULL, interruptions = j.interruptions + 1,
  outcome = CASE WHEN j.cancel_requested_at IS NOT NULL THEN 'cancelled' END,
  finished_at = CASE WHEN j.cancel_requested_at IS NOT NULL THEN now() END`

/** Step 6, for rows `j` whose holder is dead. A job that was to be cancelled need not come again. */
export const clearedAsCrash = `
  run_token = NULL, interruptions = j.interruptions + 1, crashes = j.crashes + 1,
  outcome = CASE WHEN j.cancel_requested_at IS NOT NULL THEN 'cancelled' WHEN ${isPoison} THEN 'failed' END,
  finished_at = CASE WHEN j.cancel_requested_at IS NOT NULL OR ${isPoison} THEN now() END,
  error = CASE WHEN j.cancel_requested_at IS NULL AND ${isPoison}
    THEN json_build_object('code', 'JOB_POISONOUS', 'message', '${poisonText}') ELSE j.error END`

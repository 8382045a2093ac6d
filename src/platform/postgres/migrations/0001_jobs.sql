-- The ledger: one row a durable job. The row is the promise, the queue only carries its id.
-- docs/protocols/jobs.md says who may change what.
CREATE TABLE jobs (
  id              uuid PRIMARY KEY,
  name            text NOT NULL,
  queue           text NOT NULL,
  -- json, not jsonb: the text comes back as it was sent, and a NUL escape in it does not fail a whole batch
  payload         json NOT NULL,
  priority        integer NOT NULL DEFAULT 0,
  max_attempts    integer NOT NULL DEFAULT 1,
  dedupe_key      text,
  -- what a request brought along: request id, traceparent
  context         json,
  enqueued_at     timestamptz NOT NULL DEFAULT now(),
  -- not to be run before
  run_at          timestamptz NOT NULL DEFAULT now(),
  -- false: nobody has handed the job to the queue yet, the reconciler does
  queued          boolean NOT NULL DEFAULT true,

  -- the run under way; null when there is none. Fences every write of a run: only its holder may finish the row
  run_token       uuid,
  runner          text,
  started_at      timestamptz,
  attempts        integer NOT NULL DEFAULT 0,
  interruptions   integer NOT NULL DEFAULT 0,
  -- interruptions that took the process down; five set the job aside as poison
  crashes         integer NOT NULL DEFAULT 0,
  progress        json,
  checkpoint      json,
  cancel_requested_at timestamptz,

  -- null while unfinished
  outcome         text CHECK (outcome IN ('completed', 'failed', 'cancelled')),
  result          json,
  error           json,
  finished_at     timestamptz,
  retried         integer NOT NULL DEFAULT 0
-- Half of each page is left free, for the second version that every row gets when it starts.
) WITH (fillfactor = 45, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1);

-- Columns that a start or a progress changes stand in no index, so that those updates stay on their page (HOT).
CREATE INDEX jobs_unfinished ON jobs (run_at) WHERE outcome IS NULL;
CREATE INDEX jobs_unqueued ON jobs (enqueued_at) WHERE outcome IS NULL AND NOT queued;
CREATE INDEX jobs_finished ON jobs (outcome, finished_at) WHERE outcome IS NOT NULL;
CREATE UNIQUE INDEX jobs_dedupe ON jobs (name, dedupe_key) WHERE outcome IS NULL AND dedupe_key IS NOT NULL;

-- The three statements that every run takes, as functions for the sake of their plan. The statistics of a queue are
-- always stale: a plan that was made while the table was nearly empty reads all of it, and is kept when a hundred
-- thousand jobs have come in. Here nothing but the key can be used: no sequential scan, and conditions written so
-- that no partial index fits them. What belongs to a row is found by its place in the array.

-- Step 2 of docs/protocols/jobs.md. A token that stands there already is that of a start whose answer was lost.
CREATE FUNCTION jobs_start(ids uuid[], tokens uuid[], runners text[])
RETURNS TABLE (token uuid, payload json, attempts integer, max_attempts integer, interruptions integer,
  crashes integer, checkpoint json, context json)
LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
  -- Until the end of this transaction, which is this one call: nobody waits for the disk.
  PERFORM set_config('synchronous_commit', 'off', true);
  RETURN QUERY UPDATE jobs j SET run_token = tokens[array_position(ids, j.id)],
      runner = runners[array_position(ids, j.id)], started_at = now()
    WHERE j.id = ANY(ids) AND (j.outcome IS NULL) IS TRUE AND j.run_at + interval '0' <= now()
      AND (j.run_token IS NULL OR j.run_token = tokens[array_position(ids, j.id)])
    RETURNING j.run_token, j.payload, j.attempts, j.max_attempts, j.interruptions, j.crashes, j.checkpoint,
      j.context;
END $$;

-- Step 3. `relaxed` is false within the transaction of a handler, whose writes are to be as durable as it chose.
CREATE FUNCTION jobs_note(ids uuid[], tokens uuid[], progresses json[], checkpoints json[], relaxed boolean)
RETURNS SETOF uuid
LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
  IF relaxed THEN
    PERFORM set_config('synchronous_commit', 'off', true);
  END IF;
  RETURN QUERY UPDATE jobs j SET progress = coalesce(progresses[array_position(ids, j.id)], j.progress),
      checkpoint = coalesce(checkpoints[array_position(ids, j.id)], j.checkpoint)
    WHERE j.id = ANY(ids) AND j.run_token = tokens[array_position(ids, j.id)]
    RETURNING j.id;
END $$;

-- Steps 4 and 5. Whatever goes back although its cancel was asked for is finished: nobody else would do it.
CREATE FUNCTION jobs_finish(ids uuid[], tokens uuid[], outcomes text[], results json[], errors json[],
  delays_ms float8[], used_attempts integer[], interrupted integer[])
RETURNS SETOF uuid
LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
  RETURN QUERY UPDATE jobs j SET run_token = NULL,
      (outcome, finished_at, result, error, run_at, attempts, interruptions) = (
        SELECT CASE WHEN outcomes[nth] IS NULL AND j.cancel_requested_at IS NOT NULL THEN 'cancelled' ELSE outcomes[nth] END,
          CASE WHEN outcomes[nth] IS NOT NULL OR j.cancel_requested_at IS NOT NULL THEN now() END,
          results[nth],
          CASE WHEN outcomes[nth] IS NULL THEN coalesce(errors[nth], j.error) ELSE errors[nth] END,
          CASE WHEN delays_ms[nth] IS NULL THEN j.run_at ELSE now() + delays_ms[nth] * interval '1 millisecond' END,
          j.attempts + used_attempts[nth], j.interruptions + interrupted[nth]
        FROM array_position(ids, j.id) AS nth)
    WHERE j.id = ANY(ids) AND j.run_token = tokens[array_position(ids, j.id)]
    RETURNING j.id;
END $$;

-- What the queue engine was when the ledger last agreed with it. Another epoch means that it forgot jobs.
CREATE TABLE queue_epochs (
  queue      text PRIMARY KEY,
  epoch      text NOT NULL,
  checked_at timestamptz NOT NULL DEFAULT now()
);

-- Recurring jobs. Whoever moves next_at forward inserts the job in the same transaction.
CREATE TABLE schedules (
  name       text PRIMARY KEY,
  job        text NOT NULL,
  payload    json NOT NULL,
  cron       text NOT NULL,
  time_zone  text NOT NULL,
  next_at    timestamptz NOT NULL,
  last_at    timestamptz,
  -- when a process last said that it has the definition; one that nobody has any more is removed
  seen_at    timestamptz NOT NULL DEFAULT now()
);

-- Who lives: a row a process that runs jobs or answers requests, with a heartbeat each second.
CREATE TABLE nodes (
  id           text PRIMARY KEY,
  kind         text NOT NULL,
  host         text NOT NULL,
  pid          integer NOT NULL,
  version      text NOT NULL,
  -- a worker's children: [{runner, pid, state, active: n}]; for the others null
  children     json,
  -- the runners that live, so that a delivery can ask whether the holder of a run is still there
  runners      text[] NOT NULL DEFAULT '{}',
  state        text NOT NULL,
  started_at   timestamptz NOT NULL DEFAULT now(),
  heartbeat_at timestamptz NOT NULL DEFAULT now()
);

-- Shutdown hooks that did not fit before the deadline; the next boot runs them before it takes work.
CREATE TABLE shutdown_debts (
  id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  hook        text NOT NULL,
  node        text NOT NULL,
  reason      text NOT NULL,
  recorded_at timestamptz NOT NULL DEFAULT now()
);

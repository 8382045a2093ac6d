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

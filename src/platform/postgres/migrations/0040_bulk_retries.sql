-- A retry of all failed jobs that match a filter, done in bites at a bounded rate by whichever web process holds
-- the lease. Rows stay, so that people can see what was done.
CREATE TABLE bulk_retries (
  id           uuid PRIMARY KEY,
  actor        text NOT NULL,
  -- the filter; null is any
  name         text,
  queue        text,
  -- only what had failed by then: a job that fails again is not retried again
  failed_until timestamptz NOT NULL DEFAULT now(),
  per_second   integer NOT NULL CHECK (per_second BETWEEN 1 AND 1000),
  -- counted up to a limit when it began
  matched      integer NOT NULL,
  matched_exact boolean NOT NULL,
  retried      integer NOT NULL DEFAULT 0,
  lease_until  timestamptz NOT NULL DEFAULT now(),
  created_at   timestamptz NOT NULL DEFAULT now(),
  outcome      text CHECK (outcome IN ('done', 'stopped')),
  finished_at  timestamptz
);
-- The same filter twice at once would double the rate that somebody chose.
CREATE UNIQUE INDEX bulk_retries_running ON bulk_retries (coalesce(name, ''), coalesce(queue, ''))
  WHERE outcome IS NULL;

-- The history of one job is asked for by its id.
CREATE INDEX audit_log_subject ON audit_log (subject, id);

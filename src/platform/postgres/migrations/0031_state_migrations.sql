-- docs/protocols/state-migration.md says who may change what.
CREATE TABLE state_migrations (
  id            uuid PRIMARY KEY,
  source_url    text NOT NULL,
  target_url    text NOT NULL,
  phase         text NOT NULL DEFAULT 'copying' CHECK (phase IN
                  ('scanning', 'scanned', 'copying', 'ready', 'cutting-over', 'watching', 'done', 'rolling-back', 'rolled-back', 'cancelled')),
  -- what an operator asked for; the leader obeys
  wanted        text CHECK (wanted IN ('cut-over', 'roll-back', 'cancel', 'finish')),
  paused        boolean NOT NULL DEFAULT false,
  options       json NOT NULL DEFAULT '{}',
  -- why it stands still, for people
  error         json,
  note          text,
  -- the report of a dry run
  scan          json,
  round         integer NOT NULL DEFAULT 0,
  links         integer NOT NULL DEFAULT 0,
  -- the steps of a cut-over that is under way or over
  gate_closed_at timestamptz,
  drained_at    timestamptz,
  verified_at   timestamptz,
  cut_over_at   timestamptz,
  rolled_back_at timestamptz,
  -- how long phones of this migration were turned away, ms
  gate_ms       integer,
  -- what a roll-back brought back
  back_devices  integer,
  -- set by the storm guard
  storm         json,
  storm_at      timestamptz,
  -- of a hundred parts of the phones, how many are let in again after a storm; null: that is not going on
  admitted      integer,
  admitted_at   timestamptz,
  created_at    timestamptz NOT NULL DEFAULT now(),
  updated_at    timestamptz NOT NULL DEFAULT now(),
  finished_at   timestamptz
);

CREATE TABLE state_migration_devices (
  migration   uuid NOT NULL REFERENCES state_migrations ON DELETE CASCADE,
  device      text COLLATE "C" NOT NULL,
  bucket      text COLLATE "C" NOT NULL,
  status      text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'moved', 'removed', 'failed')),
  -- of both sides, when their states were last read back and found equal
  source_fingerprint text,
  target_fingerprint text,
  states      integer NOT NULL DEFAULT 0,
  bytes       bigint NOT NULL DEFAULT 0,
  -- sha256 over the sorted keys, sizes and sha256 of all states of it
  digest      text,
  -- users that its devicedata names; and what a phone in good order never loses (inspect/landmarks.ts)
  users       bytea[] NOT NULL DEFAULT '{}',
  landmarks   text[] NOT NULL DEFAULT '{}',
  tries       integer NOT NULL DEFAULT 0,
  -- not to be tried before
  not_before  timestamptz,
  error       text,
  verified_at timestamptz,
  -- the first time that a state of it was asked for and missing after the cut-over
  missed_at   timestamptz,
  PRIMARY KEY (migration, device)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX state_migration_devices_pending ON state_migration_devices (migration, bucket, device)
  WHERE status = 'pending';
CREATE INDEX state_migration_devices_missed ON state_migration_devices (migration) WHERE missed_at IS NOT NULL;

CREATE TABLE state_migration_buckets (
  migration uuid NOT NULL REFERENCES state_migrations ON DELETE CASCADE,
  -- whose folders: a roll-back surveys the target
  side      text NOT NULL CHECK (side IN ('source', 'target')),
  bucket    text COLLATE "C" NOT NULL,
  mark      text NOT NULL,
  PRIMARY KEY (migration, side, bucket)
);

-- What was not moved, and what was moved with a remark.
CREATE TABLE state_migration_quarantine (
  migration uuid NOT NULL REFERENCES state_migrations ON DELETE CASCADE,
  device    text NOT NULL,
  name      bytea NOT NULL,
  reason    text NOT NULL,
  -- false: moved all the same, to be looked at
  held      boolean NOT NULL,
  size      bigint NOT NULL DEFAULT 0,
  sha256    text,
  -- the state's key (keyText), or 'link' for a user's: a roll-back leaves it alone
  key       text,
  -- of a name in the store: where it was seen, so that it goes when it is gone
  bucket    text,
  seen_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (migration, device, name, reason)
);

-- Engines at work, so that a rate is shared among them.
CREATE TABLE state_migration_engines (
  migration uuid NOT NULL REFERENCES state_migrations ON DELETE CASCADE,
  engine    text NOT NULL,
  seen_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (migration, engine)
);

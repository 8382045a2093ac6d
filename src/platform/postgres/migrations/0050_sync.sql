-- Replication between sites. docs/protocols/sync.md says who may change what.

-- What this site is. One row.
CREATE TABLE site (
  one        boolean PRIMARY KEY DEFAULT true CHECK (one),
  role       text NOT NULL DEFAULT 'alone' CHECK (role IN ('alone', 'leader', 'replica')),
  -- draining: web refuses, workers finish. closed: the triggers below refuse every write but those of replication
  intake     text NOT NULL DEFAULT 'open' CHECK (intake IN ('open', 'draining', 'closed')),
  epoch      bigint NOT NULL DEFAULT 1,
  lineage    uuid,
  -- of a replica: the leader's name
  leader     text,
  changed_at timestamptz NOT NULL DEFAULT now(),
  CHECK (role <> 'replica' OR intake = 'closed'),
  CHECK (role = 'alone' OR lineage IS NOT NULL)
);
INSERT INTO site DEFAULT VALUES;

-- What has changed and has no position yet. One index alone, since every write of what is replicated pays for it.
CREATE TABLE change_pending (
  n     bigint GENERATED ALWAYS AS IDENTITY,
  shard smallint NOT NULL,
  type  text NOT NULL,
  id    text NOT NULL,
  at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (shard, n)
-- A row lives for a moment, and who looks for the next one goes by all the dead ones.
) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 1);

CREATE TABLE change_heads (
  shard smallint PRIMARY KEY,
  pos   bigint NOT NULL DEFAULT 0,
  -- moves also while nothing changes, so that an idle shard shows its real lag
  at    timestamptz NOT NULL DEFAULT now()
);
INSERT INTO change_heads (shard) SELECT generate_series(0, 15);

-- Seeding and verification walk in the order of bytes, which is the same everywhere. (The ids of others have it already.)
CREATE INDEX devices_walk ON devices (id COLLATE "C");

-- The change log: one row an object, at the position of its last change.
CREATE TABLE changes (
  type    text COLLATE "C" NOT NULL,
  id      text COLLATE "C" NOT NULL,
  shard   smallint NOT NULL,
  pos     bigint NOT NULL,
  epoch   bigint NOT NULL,
  kind    text NOT NULL CHECK (kind IN ('upsert', 'delete', 'forget')),
  -- sha256 of the content, hex; null when it is gone
  hash    text,
  account text,
  at      timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (type, id)
);
CREATE UNIQUE INDEX changes_position ON changes (shard, pos);
CREATE INDEX changes_account ON changes (account) WHERE kind = 'upsert';
CREATE INDEX changes_gone ON changes (at) WHERE kind <> 'upsert';

-- Written when a lineage begins. A source that has lost them is not what it was.
CREATE TABLE sync_sentinels (
  shard   smallint PRIMARY KEY,
  lineage uuid NOT NULL
);

-- How far what was there before the triggers has been handed to change_pending.
CREATE TABLE sync_seeds (
  type  text PRIMARY KEY,
  after text,
  done  boolean NOT NULL DEFAULT false
);

-- Which process numbers and sends. Only saves work: two at once do no harm.
CREATE TABLE sync_lease (
  one    boolean PRIMARY KEY DEFAULT true CHECK (one),
  holder text,
  until  timestamptz NOT NULL DEFAULT 'epoch'
);
INSERT INTO sync_lease DEFAULT VALUES;

-- On a leader: where it sends to.
CREATE TABLE replicas (
  name        text PRIMARY KEY,
  url         text NOT NULL,
  -- API key of the other site, sealed with BATON_SECRET
  key_sealed  text NOT NULL,
  -- {"*": "report", "<type>": "report" | "replace" | "keep"}
  policy      json NOT NULL,
  paused      boolean NOT NULL DEFAULT false,
  -- why it does not go on, for people: {code, message, at}
  error       json,
  -- asked for by an operator; null when done
  verify_wanted_at timestamptz,
  verified_at timestamptz,
  -- {objects, differing, fromRows, ms}
  verified    json,
  created_at  timestamptz NOT NULL DEFAULT now(),
  updated_at  timestamptz NOT NULL DEFAULT now()
);

-- What the replica said last; its own row is the truth.
CREATE TABLE replica_cursors (
  replica    text NOT NULL REFERENCES replicas ON DELETE CASCADE,
  shard      smallint NOT NULL,
  pos        bigint NOT NULL,
  -- when it was last known to have all up to the head
  even_at    timestamptz,
  moved_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (replica, shard)
);

-- Deletes that a fuse holds back. Approved ones are sent; expired approvals count no more.
CREATE TABLE replica_fuses (
  id          uuid PRIMARY KEY,
  replica     text NOT NULL REFERENCES replicas ON DELETE CASCADE,
  reason      text NOT NULL,
  deletes     integer NOT NULL,
  at          timestamptz NOT NULL DEFAULT now(),
  approved_at timestamptz,
  approved_by text,
  closed_at   timestamptz
);

-- Objects that the cursor went past without them.
CREATE TABLE replica_quarantine (
  replica text NOT NULL REFERENCES replicas ON DELETE CASCADE,
  type    text COLLATE "C" NOT NULL,
  id      text COLLATE "C" NOT NULL,
  kind    text NOT NULL CHECK (kind IN ('failed', 'mismatch', 'held')),
  reason  text NOT NULL,
  fuse    uuid REFERENCES replica_fuses ON DELETE CASCADE,
  tries   integer NOT NULL DEFAULT 0,
  due_at  timestamptz NOT NULL DEFAULT now(),
  since   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (replica, type, id)
);
CREATE INDEX replica_quarantine_due ON replica_quarantine (replica, due_at);

-- Deletes sent, by the minute: for the fuse of an hour.
CREATE TABLE replica_deletes (
  replica text NOT NULL REFERENCES replicas ON DELETE CASCADE,
  minute  timestamptz NOT NULL,
  deletes integer NOT NULL,
  PRIMARY KEY (replica, minute)
);

-- On a replica: up to where it has what the leader numbered.
CREATE TABLE sync_cursors (
  shard smallint PRIMARY KEY,
  pos   bigint NOT NULL DEFAULT 0,
  at    timestamptz NOT NULL DEFAULT now()
);
INSERT INTO sync_cursors (shard) SELECT generate_series(0, 15);

-- What was deleted or replaced here, and conflicts, for people to take from.
CREATE TABLE sync_trash (
  n       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  type    text COLLATE "C" NOT NULL,
  id      text COLLATE "C" NOT NULL,
  reason  text NOT NULL CHECK (reason IN ('deleted', 'replaced', 'conflict')),
  content text NOT NULL,
  -- [{sha256, bytes (base64)}]
  parts   json NOT NULL DEFAULT '[]',
  epoch   bigint NOT NULL,
  at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX sync_trash_object ON sync_trash (type, id);
CREATE INDEX sync_trash_at ON sync_trash (at);

-- On a replica: parts of objects that are too large for one request, until they are applied.
CREATE TABLE sync_parts (
  type   text COLLATE "C" NOT NULL,
  id     text COLLATE "C" NOT NULL,
  sha256 text NOT NULL,
  bytes  bytea NOT NULL,
  at     timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (type, id, sha256)
);

-- On a site that led and is a replica now: what it had numbered above its cursors, or not numbered yet (then without
-- position, kind and hash). Nobody else may have it: candidates of a hard fail-over.
CREATE TABLE sync_tail (
  type  text COLLATE "C" NOT NULL,
  id    text COLLATE "C" NOT NULL,
  shard smallint NOT NULL,
  pos   bigint,
  kind  text CHECK (kind IN ('upsert', 'delete', 'forget')),
  hash  text,
  -- in which this site had it
  epoch bigint NOT NULL,
  at    timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (type, id)
);

CREATE TABLE fail_overs (
  id         uuid PRIMARY KEY,
  mode       text NOT NULL CHECK (mode IN ('rehearse', 'soft', 'hard')),
  -- the site that opens
  target     text NOT NULL,
  phase      text NOT NULL CHECK (phase IN ('preflight', 'draining', 'closed', 'flushing', 'promoting', 'demoting',
               'done', 'refused', 'aborted')),
  -- epoch after it
  epoch      bigint,
  -- positions by shard: of the heads (soft), or of what was here (hard)
  heads      json,
  abort_wanted boolean NOT NULL DEFAULT false,
  -- {code, message}
  error      json,
  -- [{phase, at, ms, …}]
  log        jsonb NOT NULL DEFAULT '[]',
  -- of candidates: {adopted, conflicts, deletedHere, …}
  report     json,
  actor      text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now(),
  finished_at timestamptz
);
CREATE UNIQUE INDEX fail_overs_running ON fail_overs ((true)) WHERE finished_at IS NULL;

-- The shard of what belongs to `anchor`: a device, else the object's own id. md5, since it is the same everywhere.
CREATE FUNCTION change_shard(anchor text) RETURNS smallint
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT (('x' || substr(md5(anchor), 1, 2))::bit(8)::integer & 15)::smallint
$$;

-- Of which an object's shard is made: a push ('<id>/<device>') goes with its device.
CREATE FUNCTION change_anchor(type text, id text) RETURNS text
  LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN type = 'push' THEN substr(id, strpos(id, '/') + 1) ELSE id END
$$;

-- The fence. False: the transaction writes what the leader sent, and nothing is to be captured.
CREATE FUNCTION change_admit() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  closed boolean;
BEGIN
  IF current_setting('baton.applying', true) = 'on' THEN
    RETURN false;
  END IF;
  -- Looked at once a transaction. It is the transaction's own number that is remembered, since a word that outlived it
  -- would let another one by; and a roll-back to a savepoint takes the lock and the word away together.
  IF current_setting('baton.admitted', true) = pg_current_xact_id()::text THEN
    RETURN true;
  END IF;
  -- Held until the end of the transaction: who closes the site waits for it (the same number is in site-rows.ts).
  PERFORM pg_advisory_xact_lock_shared(1651471214);
  IF current_setting('transaction_isolation') = 'read committed' THEN
    closed := (SELECT intake = 'closed' FROM site);
  ELSE
    -- Such a transaction sees the site as it was when it began. This fails (40001) when the row is another by now.
    SELECT intake = 'closed' INTO closed FROM site FOR SHARE;
  END IF;
  IF closed THEN
    RAISE EXCEPTION 'this site takes no writes now' USING ERRCODE = 'BT001';
  END IF;
  PERFORM set_config('baton.admitted', pg_current_xact_id()::text, true);
  RETURN true;
END $$;

CREATE FUNCTION change_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a truncate of % would not reach the replicas; use DELETE', TG_TABLE_NAME
    USING ERRCODE = 'feature_not_supported';
END $$;

-- The triggers that a site needs which is not alone: what change_capture makes, and drops.
CREATE TABLE change_triggers (
  relation   text COLLATE "C",
  name       text COLLATE "C",
  definition text NOT NULL,
  PRIMARY KEY (relation, name)
);

-- Rows that came or went, a statement at a time (one that touched no row writes nothing, so it is let by); rows that
-- changed, one by one and only where it matters to others. `change_edited` watches columns that Baton itself does not
-- change, or hardly: it costs nothing as long as no statement names them.
CREATE FUNCTION change_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM touched) AND change_admit() THEN
    INSERT INTO change_pending (shard, type, id) SELECT change_shard(id::text), 'job', id::text FROM touched;
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION change_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF change_admit() THEN
    INSERT INTO change_pending (shard, type, id) VALUES (change_shard(NEW.id::text), 'job', NEW.id::text);
    IF OLD.id <> NEW.id THEN
      INSERT INTO change_pending (shard, type, id) VALUES (change_shard(OLD.id::text), 'job', OLD.id::text);
    END IF;
  END IF;
  RETURN NULL;
END $$;
INSERT INTO change_triggers VALUES ('jobs', 'change_inserted', $$
CREATE TRIGGER change_inserted AFTER INSERT ON jobs REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_jobs()$$);
INSERT INTO change_triggers VALUES ('jobs', 'change_deleted', $$
CREATE TRIGGER change_deleted AFTER DELETE ON jobs REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_jobs()$$);
-- Of a finished job everything: what it brought and why it failed cannot be compared cheaply, and hardly anybody writes it.
INSERT INTO change_triggers VALUES ('jobs', 'change_updated', $$
CREATE TRIGGER change_updated AFTER UPDATE ON jobs FOR EACH ROW
  WHEN (OLD.outcome IS NOT NULL
    OR (OLD.outcome, OLD.run_at, OLD.attempts, OLD.interruptions, OLD.crashes, OLD.cancel_requested_at, OLD.retried)
    IS DISTINCT FROM
    (NEW.outcome, NEW.run_at, NEW.attempts, NEW.interruptions, NEW.crashes, NEW.cancel_requested_at, NEW.retried))
  EXECUTE FUNCTION change_job()$$);
INSERT INTO change_triggers VALUES ('jobs', 'change_edited', $$
CREATE TRIGGER change_edited
  AFTER UPDATE OF id, name, queue, payload, priority, max_attempts, dedupe_key, context, enqueued_at ON jobs
  FOR EACH ROW EXECUTE FUNCTION change_job()$$);
INSERT INTO change_triggers VALUES ('jobs', 'change_truncated', $$
CREATE TRIGGER change_truncated BEFORE TRUNCATE ON jobs EXECUTE FUNCTION change_refuse()$$);

CREATE FUNCTION change_pushes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM touched) AND change_admit() THEN
    INSERT INTO change_pending (shard, type, id)
      SELECT change_shard(device), 'push', id::text || '/' || device FROM touched;
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION change_push() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF change_admit() THEN
    INSERT INTO change_pending (shard, type, id)
      VALUES (change_shard(NEW.device), 'push', NEW.id::text || '/' || NEW.device);
    IF (OLD.id, OLD.device) <> (NEW.id, NEW.device) THEN
      INSERT INTO change_pending (shard, type, id)
        VALUES (change_shard(OLD.device), 'push', OLD.id::text || '/' || OLD.device);
    END IF;
  END IF;
  RETURN NULL;
END $$;
INSERT INTO change_triggers VALUES ('pushes', 'change_inserted', $$
CREATE TRIGGER change_inserted AFTER INSERT ON pushes REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_pushes()$$);
INSERT INTO change_triggers VALUES ('pushes', 'change_deleted', $$
CREATE TRIGGER change_deleted AFTER DELETE ON pushes REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_pushes()$$);
-- What the other site is told (replicated-push.ts): not when a push was delivered, nor how often it was tried; and once
-- the cloud side has it, neither when that looks again nor what is logged, until it is sent or closed.
INSERT INTO change_triggers VALUES ('pushes', 'change_updated', $$
CREATE TRIGGER change_updated AFTER UPDATE ON pushes FOR EACH ROW
  WHEN ((OLD.closed_at, OLD.sent_at, OLD.send_id, OLD.hop,
      CASE WHEN OLD.state IN ('pending', 'delivered', 'sent') THEN OLD.due_at END,
      CASE WHEN OLD.state = 'sent' OR OLD.closed_at IS NOT NULL THEN OLD.log END)
    IS DISTINCT FROM
    (NEW.closed_at, NEW.sent_at, NEW.send_id, NEW.hop,
      CASE WHEN NEW.state IN ('pending', 'delivered', 'sent') THEN NEW.due_at END,
      CASE WHEN NEW.state = 'sent' OR NEW.closed_at IS NOT NULL THEN NEW.log END))
  EXECUTE FUNCTION change_push()$$);
INSERT INTO change_triggers VALUES ('pushes', 'change_edited', $$
CREATE TRIGGER change_edited
  AFTER UPDATE OF id, device, priority, topic, payload, accepted_at, expires_at, escalate_ms ON pushes
  FOR EACH ROW EXECUTE FUNCTION change_push()$$);
INSERT INTO change_triggers VALUES ('pushes', 'change_truncated', $$
CREATE TRIGGER change_truncated BEFORE TRUNCATE ON pushes EXECUTE FUNCTION change_refuse()$$);

CREATE FUNCTION change_devices() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM touched) AND change_admit() THEN
    INSERT INTO change_pending (shard, type, id) SELECT change_shard(id), 'device', id FROM touched;
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION change_device() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF change_admit() THEN
    INSERT INTO change_pending (shard, type, id) VALUES (change_shard(NEW.id), 'device', NEW.id);
    IF OLD.id <> NEW.id THEN
      INSERT INTO change_pending (shard, type, id) VALUES (change_shard(OLD.id), 'device', OLD.id);
    END IF;
  END IF;
  RETURN NULL;
END $$;
INSERT INTO change_triggers VALUES ('devices', 'change_inserted', $$
CREATE TRIGGER change_inserted AFTER INSERT ON devices REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_devices()$$);
INSERT INTO change_triggers VALUES ('devices', 'change_deleted', $$
CREATE TRIGGER change_deleted AFTER DELETE ON devices REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_devices()$$);
INSERT INTO change_triggers VALUES ('devices', 'change_updated', $$
CREATE TRIGGER change_updated AFTER UPDATE ON devices FOR EACH ROW
  WHEN ((OLD.user_id, OLD.generation) IS DISTINCT FROM (NEW.user_id, NEW.generation))
  EXECUTE FUNCTION change_device()$$);
INSERT INTO change_triggers VALUES ('devices', 'change_edited', $$
CREATE TRIGGER change_edited AFTER UPDATE OF id, registered_at ON devices
  FOR EACH ROW EXECUTE FUNCTION change_device()$$);
INSERT INTO change_triggers VALUES ('devices', 'change_truncated', $$
CREATE TRIGGER change_truncated BEFORE TRUNCATE ON devices EXECUTE FUNCTION change_refuse()$$);

-- Of transports and groups it is the device that changes.
CREATE FUNCTION change_device_parts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM touched) AND change_admit() THEN
    INSERT INTO change_pending (shard, type, id) SELECT DISTINCT change_shard(device), 'device', device FROM touched;
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION change_device_part() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF change_admit() THEN
    INSERT INTO change_pending (shard, type, id) VALUES (change_shard(NEW.device), 'device', NEW.device);
    IF OLD.device <> NEW.device THEN
      INSERT INTO change_pending (shard, type, id) VALUES (change_shard(OLD.device), 'device', OLD.device);
    END IF;
  END IF;
  RETURN NULL;
END $$;
INSERT INTO change_triggers VALUES ('transports', 'change_inserted', $$
CREATE TRIGGER change_inserted AFTER INSERT ON transports REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_device_parts()$$);
INSERT INTO change_triggers VALUES ('transports', 'change_deleted', $$
CREATE TRIGGER change_deleted AFTER DELETE ON transports REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_device_parts()$$);
INSERT INTO change_triggers VALUES ('transports', 'change_updated', $$
CREATE TRIGGER change_updated AFTER UPDATE ON transports FOR EACH ROW EXECUTE FUNCTION change_device_part()$$);
INSERT INTO change_triggers VALUES ('transports', 'change_truncated', $$
CREATE TRIGGER change_truncated BEFORE TRUNCATE ON transports EXECUTE FUNCTION change_refuse()$$);
INSERT INTO change_triggers VALUES ('device_groups', 'change_inserted', $$
CREATE TRIGGER change_inserted AFTER INSERT ON device_groups REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_device_parts()$$);
INSERT INTO change_triggers VALUES ('device_groups', 'change_deleted', $$
CREATE TRIGGER change_deleted AFTER DELETE ON device_groups REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_device_parts()$$);
INSERT INTO change_triggers VALUES ('device_groups', 'change_updated', $$
CREATE TRIGGER change_updated AFTER UPDATE ON device_groups FOR EACH ROW
  WHEN ((OLD.device, OLD.group_id) <> (NEW.device, NEW.group_id)) EXECUTE FUNCTION change_device_part()$$);
INSERT INTO change_triggers VALUES ('device_groups', 'change_truncated', $$
CREATE TRIGGER change_truncated BEFORE TRUNCATE ON device_groups EXECUTE FUNCTION change_refuse()$$);

-- Baton's own writes of a device's states grow its version in state_devices; states and links are watched for the sake
-- of those who write past it.
CREATE FUNCTION change_states() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM touched) AND change_admit() THEN
    INSERT INTO change_pending (shard, type, id) SELECT DISTINCT change_shard(device), 'states', device FROM touched;
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION change_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF change_admit() THEN
    INSERT INTO change_pending (shard, type, id) VALUES (change_shard(NEW.device), 'states', NEW.device);
    IF OLD.device <> NEW.device THEN
      INSERT INTO change_pending (shard, type, id) VALUES (change_shard(OLD.device), 'states', OLD.device);
    END IF;
  END IF;
  RETURN NULL;
END $$;
INSERT INTO change_triggers VALUES ('state_devices', 'change_inserted', $$
CREATE TRIGGER change_inserted AFTER INSERT ON state_devices REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_states()$$);
INSERT INTO change_triggers VALUES ('state_devices', 'change_updated', $$
CREATE TRIGGER change_updated AFTER UPDATE ON state_devices FOR EACH ROW EXECUTE FUNCTION change_state()$$);
INSERT INTO change_triggers VALUES ('state_devices', 'change_deleted', $$
CREATE TRIGGER change_deleted AFTER DELETE ON state_devices REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_states()$$);
INSERT INTO change_triggers VALUES ('state_devices', 'change_truncated', $$
CREATE TRIGGER change_truncated BEFORE TRUNCATE ON state_devices EXECUTE FUNCTION change_refuse()$$);
INSERT INTO change_triggers VALUES ('states', 'change_inserted', $$
CREATE TRIGGER change_inserted AFTER INSERT ON states REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_states()$$);
INSERT INTO change_triggers VALUES ('states', 'change_deleted', $$
CREATE TRIGGER change_deleted AFTER DELETE ON states REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_states()$$);
INSERT INTO change_triggers VALUES ('states', 'change_updated', $$
CREATE TRIGGER change_updated AFTER UPDATE ON states FOR EACH ROW
  WHEN (OLD.version = NEW.version OR OLD.device <> NEW.device) EXECUTE FUNCTION change_state()$$);
INSERT INTO change_triggers VALUES ('states', 'change_truncated', $$
CREATE TRIGGER change_truncated BEFORE TRUNCATE ON states EXECUTE FUNCTION change_refuse()$$);
INSERT INTO change_triggers VALUES ('state_links', 'change_inserted', $$
CREATE TRIGGER change_inserted AFTER INSERT ON state_links REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_states()$$);
INSERT INTO change_triggers VALUES ('state_links', 'change_deleted', $$
CREATE TRIGGER change_deleted AFTER DELETE ON state_links REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_states()$$);
INSERT INTO change_triggers VALUES ('state_links', 'change_updated', $$
CREATE TRIGGER change_updated AFTER UPDATE ON state_links FOR EACH ROW EXECUTE FUNCTION change_state()$$);
INSERT INTO change_triggers VALUES ('state_links', 'change_truncated', $$
CREATE TRIGGER change_truncated BEFORE TRUNCATE ON state_links EXECUTE FUNCTION change_refuse()$$);

-- A body is there once a store has it, until it is condemned.
CREATE FUNCTION change_bodies() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM touched) AND change_admit() THEN
    INSERT INTO change_pending (shard, type, id) SELECT change_shard(id), 'body', id FROM touched;
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION change_body() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF change_admit() THEN
    INSERT INTO change_pending (shard, type, id) VALUES (change_shard(NEW.id), 'body', NEW.id);
    IF OLD.id <> NEW.id THEN
      INSERT INTO change_pending (shard, type, id) VALUES (change_shard(OLD.id), 'body', OLD.id);
    END IF;
  END IF;
  RETURN NULL;
END $$;
INSERT INTO change_triggers VALUES ('bodies', 'change_inserted', $$
CREATE TRIGGER change_inserted AFTER INSERT ON bodies REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_bodies()$$);
INSERT INTO change_triggers VALUES ('bodies', 'change_deleted', $$
CREATE TRIGGER change_deleted AFTER DELETE ON bodies REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_bodies()$$);
INSERT INTO change_triggers VALUES ('bodies', 'change_updated', $$
CREATE TRIGGER change_updated AFTER UPDATE ON bodies FOR EACH ROW
  WHEN ((OLD.stores = '{}') <> (NEW.stores = '{}') OR (OLD.condemned_at IS NULL) <> (NEW.condemned_at IS NULL)
    -- once a day, so that no sweep of the other site takes for old what was put here lately
    OR (OLD.touched_at AT TIME ZONE 'UTC')::date <> (NEW.touched_at AT TIME ZONE 'UTC')::date)
  EXECUTE FUNCTION change_body()$$);
INSERT INTO change_triggers VALUES ('bodies', 'change_edited', $$
CREATE TRIGGER change_edited AFTER UPDATE OF id, size, chunks, created_at ON bodies
  FOR EACH ROW EXECUTE FUNCTION change_body()$$);
INSERT INTO change_triggers VALUES ('bodies', 'change_truncated', $$
CREATE TRIGGER change_truncated BEFORE TRUNCATE ON bodies EXECUTE FUNCTION change_refuse()$$);

-- Before a site opens after a fail-over: what is left of the time when it led itself, if it did. Nobody waits for its
-- runs and sends any more, and a number that a listen was given then must not be confirmed by a cursor of the site that
-- led meanwhile. None of this is copied, so nothing is captured.
CREATE FUNCTION change_settle() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  former text := coalesce(current_setting('baton.applying', true), '');
BEGIN
  PERFORM set_config('baton.applying', 'on', true);
  UPDATE jobs SET run_token = NULL WHERE outcome IS NULL AND run_token IS NOT NULL;
  UPDATE pushes SET lease = NULL, delivered_seq = NULL, delivered_at = NULL,
      due_at = CASE state WHEN 'sending' THEN now() ELSE due_at END,
      state = CASE state WHEN 'delivered' THEN 'pending' WHEN 'sending' THEN 'due' ELSE state END
    WHERE closed_at IS NULL AND (lease IS NOT NULL OR delivered_seq IS NOT NULL OR state = 'sending');
  PERFORM set_config('baton.applying', former, true);
END $$;

-- All of them made or dropped: while a site is alone they are not there, so that replication costs nothing then. To disable
-- them would not do, since Postgres gathers the rows of a statement for a trigger that looks at them all the same.
CREATE FUNCTION change_capture(wanted boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  one record;
BEGIN
  FOR one IN SELECT relation, name, definition FROM change_triggers d
    WHERE wanted <> EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = d.relation::regclass AND t.tgname = d.name)
    ORDER BY relation, name
  LOOP
    EXECUTE CASE WHEN wanted THEN one.definition ELSE format('DROP TRIGGER %I ON %I', one.name, one.relation) END;
  END LOOP;
END $$;

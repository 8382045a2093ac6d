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

-- What has changed and has no position yet.
CREATE TABLE change_pending (
  n     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  shard smallint NOT NULL,
  type  text NOT NULL,
  id    text NOT NULL,
  at    timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX change_pending_shard ON change_pending (shard, n);

CREATE TABLE change_heads (
  shard smallint PRIMARY KEY,
  pos   bigint NOT NULL DEFAULT 0,
  -- moves also while nothing changes, so that an idle shard shows its real lag
  at    timestamptz NOT NULL DEFAULT now()
);
INSERT INTO change_heads (shard) SELECT generate_series(0, 15);

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

-- The fence. False: the transaction writes what the leader sent, and nothing is to be captured.
CREATE FUNCTION change_admit() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('baton.applying', true) = 'on' THEN
    RETURN false;
  END IF;
  -- Held until the end of the transaction: who closes the site waits for it (the same number is in site.ts).
  PERFORM pg_advisory_xact_lock_shared(1651471214);
  IF (SELECT intake = 'closed' FROM site) THEN
    RAISE EXCEPTION 'this site takes no writes now' USING ERRCODE = 'BT001';
  END IF;
  RETURN true;
END $$;

CREATE FUNCTION change_note(noted_type text, anchor text, noted_id text) RETURNS void LANGUAGE sql AS $$
  INSERT INTO change_pending (shard, type, id) VALUES (change_shard(anchor), noted_type, noted_id)
$$;

-- Rows that came or went, a statement at a time; rows that changed, one by one and only where it matters to others.
CREATE FUNCTION change_jobs() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF change_admit() THEN
    INSERT INTO change_pending (shard, type, id) SELECT change_shard(id::text), 'job', id::text FROM touched;
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION change_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF change_admit() THEN
    PERFORM change_note('job', NEW.id::text, NEW.id::text);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER change_inserted AFTER INSERT ON jobs REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_jobs();
CREATE TRIGGER change_deleted AFTER DELETE ON jobs REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_jobs();
CREATE TRIGGER change_updated AFTER UPDATE ON jobs FOR EACH ROW
  WHEN ((OLD.outcome, OLD.run_at, OLD.attempts, OLD.interruptions, OLD.crashes, OLD.cancel_requested_at, OLD.retried)
    IS DISTINCT FROM
    (NEW.outcome, NEW.run_at, NEW.attempts, NEW.interruptions, NEW.crashes, NEW.cancel_requested_at, NEW.retried))
  EXECUTE FUNCTION change_job();

CREATE FUNCTION change_pushes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF change_admit() THEN
    INSERT INTO change_pending (shard, type, id)
      SELECT change_shard(device), 'push', id::text || '/' || device FROM touched;
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION change_push() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF change_admit() THEN
    PERFORM change_note('push', NEW.device, NEW.id::text || '/' || NEW.device);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER change_inserted AFTER INSERT ON pushes REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_pushes();
CREATE TRIGGER change_deleted AFTER DELETE ON pushes REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_pushes();
-- To be delivered and to be sent are the same to the other site; sent, and closed, are not.
CREATE TRIGGER change_updated AFTER UPDATE ON pushes FOR EACH ROW
  WHEN (OLD.closed_at IS DISTINCT FROM NEW.closed_at OR OLD.sent_at IS DISTINCT FROM NEW.sent_at
    OR OLD.send_id IS DISTINCT FROM NEW.send_id OR OLD.hop <> NEW.hop)
  EXECUTE FUNCTION change_push();

CREATE FUNCTION change_devices() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF change_admit() THEN
    INSERT INTO change_pending (shard, type, id) SELECT change_shard(id), 'device', id FROM touched;
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION change_device() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF change_admit() THEN
    PERFORM change_note('device', NEW.id, NEW.id);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER change_inserted AFTER INSERT ON devices REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_devices();
CREATE TRIGGER change_deleted AFTER DELETE ON devices REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_devices();
CREATE TRIGGER change_updated AFTER UPDATE ON devices FOR EACH ROW
  WHEN ((OLD.user_id, OLD.generation) IS DISTINCT FROM (NEW.user_id, NEW.generation))
  EXECUTE FUNCTION change_device();

-- Of transports and groups it is the device that changes.
CREATE FUNCTION change_device_parts() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF change_admit() THEN
    INSERT INTO change_pending (shard, type, id) SELECT DISTINCT change_shard(device), 'device', device FROM touched;
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION change_device_part() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF change_admit() THEN
    PERFORM change_note('device', NEW.device, NEW.device);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER change_inserted AFTER INSERT ON transports REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_device_parts();
CREATE TRIGGER change_deleted AFTER DELETE ON transports REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_device_parts();
CREATE TRIGGER change_updated AFTER UPDATE ON transports FOR EACH ROW EXECUTE FUNCTION change_device_part();
CREATE TRIGGER change_inserted AFTER INSERT ON device_groups REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_device_parts();
CREATE TRIGGER change_deleted AFTER DELETE ON device_groups REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_device_parts();

-- Every write of a device's states grows its version in state_devices.
CREATE FUNCTION change_states() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF change_admit() THEN
    INSERT INTO change_pending (shard, type, id) SELECT DISTINCT change_shard(device), 'states', device FROM touched;
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER change_inserted AFTER INSERT ON state_devices REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_states();
CREATE TRIGGER change_updated AFTER UPDATE ON state_devices REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_states();
CREATE TRIGGER change_deleted AFTER DELETE ON state_devices REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_states();
CREATE TRIGGER change_inserted AFTER INSERT ON state_links REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_states();
CREATE TRIGGER change_deleted AFTER DELETE ON state_links REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_states();

-- A body is there once a store has it, until it is condemned.
CREATE FUNCTION change_bodies() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF change_admit() THEN
    INSERT INTO change_pending (shard, type, id) SELECT change_shard(id), 'body', id FROM touched;
  END IF;
  RETURN NULL;
END $$;
CREATE FUNCTION change_body() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF change_admit() THEN
    PERFORM change_note('body', NEW.id, NEW.id);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER change_inserted AFTER INSERT ON bodies REFERENCING NEW TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_bodies();
CREATE TRIGGER change_deleted AFTER DELETE ON bodies REFERENCING OLD TABLE AS touched
  FOR EACH STATEMENT EXECUTE FUNCTION change_bodies();
CREATE TRIGGER change_updated AFTER UPDATE ON bodies FOR EACH ROW
  WHEN ((OLD.stores = '{}') <> (NEW.stores = '{}') OR (OLD.condemned_at IS NULL) <> (NEW.condemned_at IS NULL))
  EXECUTE FUNCTION change_body();

-- All of them on or off: off while a site is alone, so that replication costs nothing then.
CREATE FUNCTION change_capture(wanted boolean) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  one record;
BEGIN
  FOR one IN SELECT c.relname, t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
    WHERE t.tgname IN ('change_inserted', 'change_deleted', 'change_updated') AND c.relnamespace = current_schema()::regnamespace
    ORDER BY c.relname, t.tgname
  LOOP
    EXECUTE format('ALTER TABLE %I %s TRIGGER %I', one.relname, CASE WHEN wanted THEN 'ENABLE' ELSE 'DISABLE' END, one.tgname);
  END LOOP;
END $$;
SELECT change_capture(false);

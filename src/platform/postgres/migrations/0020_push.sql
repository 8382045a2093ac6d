-- Devices and what is pushed to them. docs/protocols/push-alarm.md says who may change what:
-- whoever changes rows of pushes holds the row of their device.
CREATE TABLE devices (
  id            text PRIMARY KEY,
  -- hash of the id, 0 … 63
  shard         smallint NOT NULL,
  user_id       text,
  -- tells a device from an earlier one of the same id; part of its token
  generation    bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint,
  -- how long the device lately took to come back after it was answered, smoothed
  reconnect_ms  integer NOT NULL DEFAULT 5000,
  -- the number that was last given to a delivered row. Starts with the time, so that a cursor of an earlier
  -- device of the same id confirms nothing of this one
  delivery_seq  bigint NOT NULL DEFAULT (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
  -- GCRA: the theoretical arrival time of the next cloud push
  flood_at      timestamptz NOT NULL DEFAULT 'epoch',
  -- the newest listen, and the web process that holds it
  listen_id     uuid,
  listen_node   text,
  seen_at       timestamptz,
  registered_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1);
CREATE INDEX devices_user ON devices (user_id) WHERE user_id IS NOT NULL;

-- Where the cloud reaches a device, in order of preference.
CREATE TABLE transports (
  device        text NOT NULL REFERENCES devices ON DELETE CASCADE,
  position      smallint NOT NULL,
  kind          text NOT NULL,
  -- endpoint, token or URL
  address       text NOT NULL,
  -- keys and whatever else the kind needs; never logged
  options       json NOT NULL,
  registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  dead_at       timestamptz,
  dead_reason   text,
  PRIMARY KEY (device, position)
);

CREATE TABLE device_groups (
  group_id text NOT NULL,
  device   text NOT NULL REFERENCES devices ON DELETE CASCADE,
  PRIMARY KEY (group_id, device)
);
CREATE INDEX device_groups_device ON device_groups (device);

-- One row for each device that a message goes to.
CREATE TABLE pushes (
  -- of the message; the same for all its devices
  id            uuid NOT NULL,
  device        text NOT NULL,
  shard         smallint NOT NULL,
  -- order of acceptance within a device
  seq           bigint GENERATED ALWAYS AS IDENTITY,
  state         text NOT NULL CHECK (state IN ('pending', 'delivered', 'due', 'sending', 'sent', 'undeliverable',
                                               'confirmed', 'expired', 'withdrawn', 'replaced')),
  -- false: only for those who listen
  priority      boolean NOT NULL,
  topic         text,
  -- json, not jsonb: the text comes back as it was sent
  payload       json,
  accepted_at   timestamptz NOT NULL DEFAULT now(),
  expires_at    timestamptz NOT NULL,
  -- when the cloud side has to look again: timeout, end of a hold, of a lease, retry, escalation, end of life
  due_at        timestamptz NOT NULL,
  closed_at     timestamptz,
  delivered_seq bigint,
  delivered_at  timestamptz,
  -- the lowest position of a transport that may be tried
  hop           smallint NOT NULL DEFAULT 0,
  -- on this hop
  attempts      smallint NOT NULL DEFAULT 0,
  escalate_ms   integer,
  sent_at       timestamptz,
  -- the process that is sending; fences its mark
  lease         uuid,
  -- id and collapse key of the cloud push that these rows are part of; kept when its sender dies
  send_id       uuid,
  collapse      text,
  -- milestones beyond those that the columns tell: [{name, at (epoch ms), …}]
  log           jsonb NOT NULL DEFAULT '[]',
  PRIMARY KEY (id, device)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 1);

CREATE INDEX pushes_due ON pushes (shard, due_at) WHERE closed_at IS NULL;
CREATE INDEX pushes_open ON pushes (device, seq) WHERE closed_at IS NULL;
CREATE INDEX pushes_topic ON pushes (device, topic) WHERE closed_at IS NULL AND topic IS NOT NULL;

-- One milestone more; the number is bounded, so that a row that is retried for days stays small.
CREATE FUNCTION push_log(log jsonb, name text, details jsonb DEFAULT '{}') RETURNS jsonb
  LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN jsonb_array_length(log) >= 60 THEN log
    ELSE log || jsonb_build_array(
      jsonb_build_object('name', name, 'at', (extract(epoch FROM now()) * 1000)::bigint) || details) END
$$;

-- Baton's own store of device states. Every write of a device's states goes through its row here, whose version grows:
-- it is what a migration and, later, a change log take as "something changed".
CREATE TABLE state_devices (
  device     text COLLATE "C" PRIMARY KEY,
  version    bigint NOT NULL DEFAULT 1,
  changed_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE states (
  device     text COLLATE "C" NOT NULL,
  uuid       text COLLATE "C" NOT NULL,
  type       text COLLATE "C" NOT NULL,
  counter    bigint NOT NULL,
  data       bytea NOT NULL,
  sha256     bytea NOT NULL,
  -- of the device, when this state was written
  version    bigint NOT NULL,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (device, uuid, type, counter)
);

-- User names are bytes: phones send them in any encoding.
CREATE TABLE state_links (
  id     bigint GENERATED ALWAYS AS IDENTITY,
  -- (the order of linking, which a directory of files keeps)
  user_name bytea NOT NULL,
  device text COLLATE "C" NOT NULL,
  PRIMARY KEY (user_name, device)
);
CREATE INDEX state_links_device ON state_links (device);

-- One row: the gate of this store. Open only while version is '2'.
CREATE TABLE state_gate (
  one        boolean PRIMARY KEY DEFAULT true CHECK (one),
  version    text NOT NULL,
  reason     text,
  -- the migration whose mark closed it last: misses after a cut-over are counted for it
  owner      text,
  -- of a hundred parts of the devices, how many are let in although the gate is closed
  admitted   integer NOT NULL DEFAULT 0 CHECK (admitted BETWEEN 0 AND 100),
  changed_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO state_gate (version) VALUES ('2');

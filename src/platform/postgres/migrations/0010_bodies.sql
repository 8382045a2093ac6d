-- One row a body. The bytes lie in the stores; src/domain/bodies says in which order the two are written.
CREATE TABLE bodies (
  -- sha256 of the bytes
  id           text COLLATE "C" PRIMARY KEY CHECK (id ~ '^[0-9a-f]{64}$'),
  size         bigint NOT NULL CHECK (size >= 0),
  -- sha256 of each MiB, 32 bytes each, then 32 bytes that bind them to id and size. Lets a range be verified.
  chunks       bytea NOT NULL,
  -- names of the stores that hold a durable copy; none while a put is under way, and then nobody sees the body
  stores       text[] NOT NULL DEFAULT '{}',
  created_at   timestamptz NOT NULL DEFAULT now(),
  -- the last put of these bytes
  touched_at   timestamptz NOT NULL DEFAULT now(),
  -- the last time that every copy was read and found right
  checked_at   timestamptz,
  -- the first phase of a sweep: nothing referred to it then. A put takes it back
  condemned_at timestamptz
);
CREATE INDEX bodies_unchecked ON bodies (created_at) WHERE checked_at IS NULL;
CREATE INDEX bodies_condemned ON bodies (condemned_at) WHERE condemned_at IS NOT NULL;

-- Bodies of which a copy is missing, bad or in the wrong place. Written in the transaction that learns of it.
CREATE TABLE body_repairs (
  body       text COLLATE "C" PRIMARY KEY REFERENCES bodies ON DELETE CASCADE,
  reason     text NOT NULL,
  -- changes when somebody asks again, so that a repair under way does not take the new wish for its own
  wish       bigint NOT NULL DEFAULT 1,
  since      timestamptz NOT NULL DEFAULT now(),
  attempts   integer NOT NULL DEFAULT 0,
  due_at     timestamptz NOT NULL DEFAULT now(),
  error      text
);
CREATE INDEX body_repairs_due ON body_repairs (due_at);

-- The places that bodies lie in. The identity is a word that the place itself keeps: another word is another place.
CREATE TABLE body_stores (
  name       text PRIMARY KEY,
  identity   text NOT NULL,
  first_seen_at timestamptz NOT NULL DEFAULT now()
);

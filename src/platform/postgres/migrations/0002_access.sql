-- API keys, as hashes: whoever reads the database cannot use them.
CREATE TABLE api_keys (
  id           uuid PRIMARY KEY,
  name         text NOT NULL,
  role         text NOT NULL CHECK (role IN ('producer', 'operator', 'viewer')),
  key_sha256   text NOT NULL UNIQUE,
  -- the first characters, so that people can tell keys apart
  prefix       text NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  revoked_at   timestamptz
);

-- Answers to requests that carried an Idempotency-Key, kept for 24 hours.
CREATE TABLE idempotency_keys (
  -- whose key: the same word of two clients is two keys
  owner        text NOT NULL,
  key          text NOT NULL,
  request_sha256 text NOT NULL,
  status       integer NOT NULL,
  response     json NOT NULL,
  created_at   timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (owner, key)
);
CREATE INDEX idempotency_keys_created ON idempotency_keys (created_at);

-- Who did what to what, from the dashboard, the API and the command line.
CREATE TABLE audit_log (
  id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  at         timestamptz NOT NULL DEFAULT now(),
  actor      text NOT NULL,
  action     text NOT NULL,
  subject    text NOT NULL,
  details    json
);

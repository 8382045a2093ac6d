-- Where the scrubber is, and what it has found so far. One row.
CREATE TABLE body_scrub (
  one              boolean PRIMARY KEY DEFAULT true CHECK (one),
  -- the last body of the pass under way; null at its beginning
  cursor           text COLLATE "C",
  pass_began_at    timestamptz NOT NULL DEFAULT now(),
  passes           bigint NOT NULL DEFAULT 0,
  checked          bigint NOT NULL DEFAULT 0,
  bad              bigint NOT NULL DEFAULT 0,
  missing          bigint NOT NULL DEFAULT 0,
  lost             bigint NOT NULL DEFAULT 0,
  ran_at           timestamptz,
  -- a body of which the scrubber itself spoilt a copy, to see whether it finds it
  canary           text COLLATE "C",
  canary_planted_at timestamptz,
  canary_found_at  timestamptz
);
INSERT INTO body_scrub DEFAULT VALUES;

CREATE INDEX bodies_touched ON bodies (touched_at) WHERE condemned_at IS NULL;

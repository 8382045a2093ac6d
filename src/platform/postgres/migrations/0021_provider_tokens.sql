-- What one process signed for a push provider, so that all send with it: Apple counts how often a team's token changes.
-- Sealed with a key that is made from the signing key, which is not here.
CREATE TABLE provider_tokens (
  -- the provider, the team, and which key
  name    text PRIMARY KEY,
  sealed  text NOT NULL,
  made_at timestamptz NOT NULL
);

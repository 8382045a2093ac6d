-- A number is given to a row when it is fetched for a listen. That its bytes left for the client is known only later.
ALTER TABLE devices
  -- the number up to which rows have left for a client: what a listen without a cursor confirms
  ADD COLUMN answered_seq bigint NOT NULL DEFAULT 0;
UPDATE devices SET answered_seq = delivery_seq;

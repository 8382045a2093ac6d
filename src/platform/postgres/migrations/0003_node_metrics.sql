-- What a worker has counted since it began: {totals, crashLoops}, a few kilobytes, written when it has changed.
ALTER TABLE nodes ADD COLUMN metrics json;

-- What the job `import` writes: the rows of uploaded tables.
CREATE TABLE datasets (
  name   text PRIMARY KEY,
  -- the import that the rows are of; a newer one takes the dataset over
  import uuid NOT NULL,
  started_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE dataset_rows (
  dataset text NOT NULL REFERENCES datasets ON DELETE CASCADE,
  -- line of the file that the row began on, from 1
  line    bigint NOT NULL,
  data    json NOT NULL,
  PRIMARY KEY (dataset, line)
);

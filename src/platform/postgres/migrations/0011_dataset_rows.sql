-- What the job `import` writes: the rows of uploaded tables.
CREATE TABLE dataset_rows (
  dataset text NOT NULL,
  -- line of the file that the row began on, from 1
  line    bigint NOT NULL,
  data    json NOT NULL,
  PRIMARY KEY (dataset, line)
);

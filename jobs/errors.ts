import { defineError } from '../src/core/errors.ts'

export const TABLE_INVALID = defineError(
  'TABLE_INVALID',
  'The body is no table that can be read: {reason}. Send CSV with a header line, or NDJSON.',
  { status: 422, retry: 'never', report: false },
)

export const COLUMN_UNKNOWN = defineError(
  'COLUMN_UNKNOWN',
  'The table has no column "{column}". It has: {columns}.',
  { status: 422, retry: 'never', report: false },
)

export const REPORT_TOO_LONG = defineError(
  'REPORT_TOO_LONG',
  'The column "{column}" has more than {max} different values, too many for a report.',
  { status: 422, retry: 'never', report: false },
)

export const DATASET_TAKEN_OVER = defineError(
  'DATASET_TAKEN_OVER',
  'A newer import has taken the dataset {dataset} over. Its rows are the newer ones.',
  { status: 409, retry: 'never', report: false },
)

export const PHOTO_INVALID = defineError(
  'PHOTO_INVALID',
  'The body is no photo that can be read: {reason}. Send JPEG, PNG, WebP, GIF, TIFF or AVIF.',
  { status: 422, retry: 'never', report: false },
)

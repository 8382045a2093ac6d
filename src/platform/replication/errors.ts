import { defineError } from '../../core/errors.ts'

export const SITE_IS_REPLICA = defineError(
  'SITE_IS_REPLICA',
  'This site is a replica of {leader} (epoch {epoch}); {what} is for the site that leads. Ask {leader}, or fail over to this site first.',
  { status: 409, retry: 'never', report: false },
)

export const SITE_NOT_LEADER = defineError(
  'SITE_NOT_LEADER',
  'This site replicates to nobody, so {what} means nothing here. Register a replica first (`PUT /v1/replicas/:name`).',
  { status: 409, retry: 'never', report: false },
)

export const SITE_LEADS = defineError(
  'SITE_LEADS',
  'This site leads itself, at epoch {current}, so it does not follow {leader} at epoch {epoch}. A fail-over makes a leader a replica; following does not, since that would leave behind what only this site has.',
  { status: 409, retry: 'never', report: true },
)

export const SITE_IN_USE = defineError(
  'SITE_IN_USE',
  'This site does not give up its lead: {why}. Nothing was changed.',
  { status: 409, retry: 'never', report: false },
)

export const SITE_NOT_EMPTY = defineError(
  'SITE_NOT_EMPTY',
  'This site has {what} of its own, and a replica must begin empty. Nothing was changed. Give it an empty database, or make this site the leader.',
  { status: 409, retry: 'never', report: false },
)

export const SITE_BUSY = defineError(
  'SITE_BUSY',
  'The site could not be {what} within {ms} ms, since others still write: {who}. Nothing was changed; try again when they are done.',
  { status: 503, retry: 'after', report: true },
)

export const LINEAGE_FOREIGN = defineError(
  'LINEAGE_FOREIGN',
  'This site is of another lineage ({here}) than what it was told ({there}): the two never shared their objects. Nothing was changed. Sites of different lineages cannot be joined; begin with an empty one.',
  { status: 409, retry: 'never', report: true },
)

export const EPOCH_STALE = defineError(
  'EPOCH_STALE',
  'Epoch {epoch} was refused: this site is {role} at epoch {current}. Somebody else failed over meanwhile; ask both sites for their status, and go on from the higher epoch.',
  { status: 409, retry: 'never', report: true },
)

export const SYNC_BEHIND = defineError(
  'SYNC_BEHIND',
  'This site does not have what it would need: shard {shard} is at position {found} and should be at {wanted} ({count} shards differ). Nothing was changed. Let replication finish, then try again.',
  { status: 409, retry: 'backoff', report: true },
)

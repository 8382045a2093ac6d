import { defineError } from '../../core/errors.ts'

export const SITE_IS_NO_REPLICA = defineError(
  'SITE_IS_NO_REPLICA',
  'This site follows nobody. Its leader has to say hello first.',
  { status: 409, retry: 'never', report: false },
)

export const SYNC_CURSOR = defineError(
  'SYNC_CURSOR',
  'Shard {shard} of this replica stands at {cursor}, not at {from}: nothing was applied.',
  { status: 409, retry: 'never', report: false },
)

export const SYNC_PROTOCOL = defineError(
  'SYNC_PROTOCOL',
  'This site speaks protocol {ours} of replication, the other one {theirs}. Bring both to the same release.',
  { status: 409, retry: 'never', report: false },
)

export const SYNC_TYPE_UNKNOWN = defineError(
  'SYNC_TYPE_UNKNOWN',
  'This site knows no objects of the type {type}. Bring both sites to the same release.',
  { status: 400, retry: 'never', report: false },
)

export const SYNC_SECRET_MISSING = defineError(
  'SYNC_SECRET_MISSING',
  'The keys of replicas are sealed with BATON_SECRET, and there is none. Set it, the same on all sites.',
  { status: 409, retry: 'never', report: false },
)

export const SYNC_TAIL_LEFT = defineError(
  'SYNC_TAIL_LEFT',
  'This site led before, and hands over first what only it has. It follows once that is done.',
  { status: 503, retry: 'after', report: false },
)

export const REPLICA_NOT_FOUND = defineError(
  'REPLICA_NOT_FOUND',
  'There is no replica {name}. `baton sync status` shows those that there are.',
  { status: 404, retry: 'never', report: false },
)

export const REPLICA_UNUSABLE = defineError(
  'REPLICA_UNUSABLE',
  'The site at {site} cannot be a replica of this one: {reason}',
  { status: 409, retry: 'never', report: false },
)

export const REPLICA_DIVERGED = defineError(
  'REPLICA_DIVERGED',
  'Shard {shard} of the replica stands at {cursor}, and here the head is {head}: it has what this site never sent. It is paused. Begin it anew with an empty database, or resume it and verify.',
  { status: 409, retry: 'never', report: true },
)

export const FUSE_NOT_FOUND = defineError(
  'FUSE_NOT_FOUND',
  'There is no open plan {id} of the replica {name}. `baton sync status` shows those that there are.',
  { status: 404, retry: 'never', report: false },
)

export const FUSE_EXPIRED = defineError(
  'FUSE_EXPIRED',
  'Plan {id} is older than 24 hours. Its deletes are judged anew; look at them again.',
  { status: 409, retry: 'never', report: false },
)

export const REPLICA_KEY_UNREADABLE = defineError(
  'REPLICA_KEY_UNREADABLE',
  'The key of the replica at {url} was sealed with another BATON_SECRET. Register it again with its key.',
  { status: 409, retry: 'never', report: true },
)

export const TRASH_NOT_FOUND = defineError(
  'TRASH_NOT_FOUND',
  'There is no {n} in the trash of this site. `baton sync trash` shows what there is; after seven days it is emptied.',
  { status: 404, retry: 'never', report: false },
)

export const TRASH_OCCUPIED = defineError(
  'TRASH_OCCUPIED',
  'There is another version of the {type} {id} now, so that {n} was not restored. With --yes that one goes to the trash, and this one takes its place.',
  { status: 409, retry: 'never', report: false },
)

export const TRASH_NOT_RESTORED = defineError(
  'TRASH_NOT_RESTORED',
  '{n} of the trash could not be written back: {reason}. Nothing was changed. `baton sync trash --show {n}` has its content.',
  { status: 409, retry: 'never', report: false },
)

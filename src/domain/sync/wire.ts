import { type Static, type TSchema, Type } from 'typebox'
import type { Fault } from '../../core/errors.ts'
import { INPUT_INVALID } from '../../platform/queues/errors.ts'
import { createCheck } from '../../platform/queues/faults.ts'

/** Grows when two sites of different releases would misunderstand each other. */
export const protocol = 1
export const shards = 16
export const buckets = 256
/** Objects of one request. */
export const mostObjects = 1_000

const Position = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const Shard = Type.Integer({ minimum: 0, maximum: shards - 1 })
const Lineage = Type.String({ pattern: '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' })
const Hash = Type.String({ pattern: '^[0-9a-f]{64}$' })
const OrNull = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()])
const Name = Type.String({ minLength: 1, maxLength: 64 })
const Id = Type.String({ minLength: 1, maxLength: 2_000 })
const Kind = Type.Enum(['upsert', 'delete', 'forget'])
const Positions = Type.Array(Position, { minItems: shards, maxItems: shards })
const strict = { additionalProperties: false }

/** Begins every request: who speaks. */
const sender = { protocol: Type.Integer(), lineage: Lineage, epoch: Position }
const Sender = Type.Object(sender)
export type Sender = Static<typeof Sender>

export const HelloRequest = Type.Object(
  {
    ...sender,
    lineage: OrNull(Lineage),
    leader: Name,
    look: Type.Boolean({ description: 'Only tell; change and refuse nothing' }),
    challenge: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 2_147_483_647,
        description: 'A lock that is held in the database of who asks: where it is seen is the same site',
      }),
    ),
  },
  strict,
)
export const HelloAnswer = Type.Object({
  protocol: Type.Integer(),
  name: Name,
  version: Type.String(),
  role: Type.Enum(['alone', 'leader', 'replica']),
  intake: Type.Enum(['open', 'draining', 'closed']),
  epoch: Position,
  lineage: OrNull(Lineage),
  leader: OrNull(Type.String()),
  cursors: Positions,
  empty: Type.Boolean({ description: 'Of a site that is alone: it has no objects' }),
  lostAfter: OrNull(Positions),
  self: Type.Optional(Type.Boolean({ description: 'The challenge is held here' })),
})

const Reference = { type: Name, id: Id, kind: Kind, hash: OrNull(Hash) }
export const PlanRequest = Type.Object(
  { ...sender, objects: Type.Array(Type.Object(Reference, strict), { maxItems: mostObjects }) },
  strict,
)
export const PlanAnswer = Type.Object({
  objects: Type.Array(
    Type.Object({
      state: Type.Enum(['current', 'send', 'mismatch']),
      parts: Type.Array(Hash, { description: 'Parts that are here already' }),
      has: Type.Boolean({ description: 'Its bytes, which go on their own, are here already' }),
    }),
    { maxItems: mostObjects },
  ),
})

const Policy = Type.Enum(['report', 'replace', 'keep'])
const Part = Type.Object({ sha256: Hash, bytes: Type.String({ description: 'base64' }) }, strict)
const SentObject = {
  ...Reference,
  account: OrNull(Type.String({ maxLength: 2_000 })),
  content: OrNull(Type.String()),
  parts: Type.Array(Part),
}
const AppliedObject = Type.Object({ ...SentObject, pos: Position, policy: Policy }, strict)
export const ApplyRequest = Type.Object(
  {
    ...sender,
    shard: Shard,
    window: OrNull(Type.Object({ from: Position, to: Position }, strict)),
    objects: Type.Array(AppliedObject, { maxItems: mostObjects }),
  },
  strict,
)
export const ApplyAnswer = Type.Object({
  cursor: Position,
  results: Type.Array(
    Type.Object({
      state: Type.Enum(['applied', 'current', 'mismatch', 'failed', 'stale']),
      reason: Type.Optional(Type.String()),
    }),
    { maxItems: mostObjects },
  ),
})

export const PartsRequest = Type.Object({ ...sender, type: Name, id: Id, parts: Type.Array(Part) }, strict)
export const PartsAnswer = Type.Object({ kept: Type.Integer({ minimum: 0 }) })

export const DigestRequest = Type.Object(
  {
    ...sender,
    shard: Shard,
    pos: Position,
    digests: Type.Array(Type.String({ pattern: '^[0-9]{1,20}$' }), { minItems: buckets, maxItems: buckets }),
  },
  strict,
)
export const DigestAnswer = Type.Object({
  cursor: Position,
  differing: OrNull(Type.Array(Type.Integer({ minimum: 0, maximum: buckets - 1 }), { maxItems: buckets })),
})

export const BucketRequest = Type.Object(
  { ...sender, shard: Shard, bucket: Type.Integer({ minimum: 0, maximum: buckets - 1 }) },
  strict,
)
export const BucketAnswer = Type.Object({
  cursor: Position,
  entries: Type.Array(Type.Object({ type: Name, id: Id, hash: Hash })),
})

export const RereadRequest = Type.Object(
  {
    ...sender,
    type: Name,
    after: OrNull(Type.String()),
    limit: Type.Integer({ minimum: 1, maximum: mostObjects }),
  },
  strict,
)
export const RereadAnswer = Type.Object({
  objects: Type.Integer({ minimum: 0 }),
  next: OrNull(Type.String()),
  differing: Type.Array(Type.Object({ type: Name, id: Id, expected: OrNull(Hash), found: OrNull(Hash) })),
})

export const CandidatesRequest = Type.Object(
  {
    ...sender,
    lostAfter: Positions,
    shard: Shard,
    objects: Type.Array(Type.Object(SentObject, strict), { maxItems: mostObjects }),
  },
  strict,
)
export const CandidatesAnswer = Type.Object({
  results: Type.Array(
    Type.Object({
      state: Type.Enum(['adopted', 'conflict', 'deleted', 'current', 'ignored', 'failed']),
      reason: Type.Optional(Type.String()),
    }),
    { maxItems: mostObjects },
  ),
})

export type HelloRequest = Static<typeof HelloRequest>
export type HelloAnswer = Static<typeof HelloAnswer>
export type PlanRequest = Static<typeof PlanRequest>
export type PlanAnswer = Static<typeof PlanAnswer>
export type ApplyRequest = Static<typeof ApplyRequest>
export type ApplyAnswer = Static<typeof ApplyAnswer>
export type AppliedObject = Static<typeof AppliedObject>
export type PartsRequest = Static<typeof PartsRequest>
export type PartsAnswer = Static<typeof PartsAnswer>
export type DigestRequest = Static<typeof DigestRequest>
export type DigestAnswer = Static<typeof DigestAnswer>
export type BucketRequest = Static<typeof BucketRequest>
export type BucketAnswer = Static<typeof BucketAnswer>
export type RereadRequest = Static<typeof RereadRequest>
export type RereadAnswer = Static<typeof RereadAnswer>
export type CandidatesRequest = Static<typeof CandidatesRequest>
export type CandidatesAnswer = Static<typeof CandidatesAnswer>
export type Policy = Static<typeof Policy>

/** Reads what came from outside. @throws INPUT_INVALID with every fault */
export function createReader<T extends TSchema>(schema: T): (value: unknown) => Static<T> {
  const check = createCheck(schema)
  return (value) => {
    const faults: Fault[] = check(value)
    if (faults.length > 0) {
      const summary = faults.slice(0, 3).map(({ path, message }) => `${path || '/'} ${message}`)
      throw INPUT_INVALID({ summary: summary.join('; ') }, { faults: faults.slice(0, 100) })
    }
    return value as Static<T>
  }
}

import type { Queryable } from '../../platform/postgres/postgres.ts'
import type { Part, ReplicatedType } from '../../platform/replication/replicated.ts'

export type TrashReason = 'deleted' | 'replaced' | 'conflict'

export interface Discarded {
  id: string
  reason: TrashReason
  content: string
  epoch: number
}

/** Keeps what is about to be overwritten or removed, with its bytes, in the same transaction. */
export async function discard(
  type: ReplicatedType,
  { id, reason, content, epoch }: Discarded,
  client: Queryable,
): Promise<void> {
  const parts = (await type.parts?.(id, new Set(), client)) ?? []
  await keepInTrash({ type: type.type, id, reason, content, epoch, parts }, client)
}

/** The same for what came from another site. Again with the same content changes nothing. */
export async function keepInTrash(
  { type, id, reason, content, epoch, parts }: Discarded & { type: string; parts: readonly Part[] },
  client: Queryable,
): Promise<void> {
  await client.query(
    `INSERT INTO sync_trash (type, id, reason, content, parts, epoch)
     SELECT $1, $2, $3, $4, $5, $6 WHERE NOT EXISTS (
       SELECT FROM sync_trash WHERE type = $1 AND id = $2 AND reason = $3 AND content = $4 AND epoch = $6
         AND reason = 'conflict')`,
    [type, id, reason, content, JSON.stringify(parts.map(encodePart)), epoch],
  )
}

export const encodePart = ({ sha256, bytes }: Part): { sha256: string; bytes: string } => ({
  sha256,
  bytes: bytes.toString('base64'),
})

export const decodePart = ({ sha256, bytes }: { sha256: string; bytes: string }): Part => ({
  sha256,
  bytes: Buffer.from(bytes, 'base64'),
})

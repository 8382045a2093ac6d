/** Rows are spread over this many shards by their device. A change would need every row to be written anew. */
export const shardCount = 64

/** All shards, for a look at everything. */
export const allShards: readonly number[] = Array.from({ length: shardCount }, (_none, shard) => shard)

/** FNV-1a over the id's UTF-8 bytes, folded. Fixed for ever: it is written in rows. */
export function shardOf(device: string): number {
  let hash = 0x811c9dc5
  for (const byte of Buffer.from(device, 'utf8')) hash = Math.imul(hash ^ byte, 0x01000193)
  return ((hash >>> 16) ^ hash) & (shardCount - 1)
}

import { sha256 } from '../../core/digest.ts'
import { messageOf } from '../../core/errors.ts'
import type { Client, Postgres, Queryable } from '../../platform/postgres/postgres.ts'
import type { Image, ReplicatedType } from '../../platform/replication/replicated.ts'
import { type Numbered, number, type ObjectName, postpone, takePending } from './sequencer-rows.ts'

/** Numbers what has changed: docs/protocols/sync.md, section 2. Any number of them may run. */
export interface Sequencer {
  /**
   * Numbers what is pending, all shards in turn, a bounded number of batches of each: while others go on writing it ends all the
   * same. Does nothing on a site that does not lead.
   * @returns objects dealt with, also those that had not changed; 0: nothing is pending
   */
  drain(): Promise<number>
  drainShard(shard: number): Promise<number>
  /** By shard. */
  heads(database?: Queryable): Promise<number[]>
  /**
   * Runs `work` under the lock of the shard's head, with nothing pending in that shard, in the same transaction. Short
   * work: nothing of the shard is numbered meanwhile.
   */
  atHead<T>(shard: number, work: (client: Client, head: number) => Promise<T>): Promise<T>
}

export interface SequencerOptions {
  postgres: Postgres
  types: readonly ReplicatedType[]
  /** Pending rows that one transaction takes. Default 500. */
  batch?: number
  /** Told of each object that cannot be read; it stays pending, and the others are numbered. */
  onError?(error: unknown, object: ObjectName): void
}

/** So that a shard with much to do does not keep the others waiting for ever. */
const batchesInTurn = 20

export function createSequencer(options: SequencerOptions): Sequencer {
  const { postgres, batch = 500 } = options
  const bite = (shard: number): Promise<Bitten> =>
    postgres.transaction(async (client) => {
      const head = await lockHead(client, shard)
      return numberBatch(client, { ...options, batch }, { shard, head })
    })
  const drainShard = async (shard: number): Promise<number> => {
    let total = 0
    for (let turn = 0; turn < batchesInTurn; turn++) {
      const { done, isLast } = await bite(shard)
      total += done
      if (isLast) break
    }
    return total
  }

  return {
    drainShard,
    drain: async () => {
      let total = 0
      for (const shard of await pendingShards(postgres)) total += await drainShard(shard)
      await refreshIdle(postgres)
      return total
    },
    heads: (database = postgres) => readHeads(database),
    atHead: async (shard, work) => {
      // Most of it before the lock is kept for longer.
      await drainShard(shard)
      return postgres.transaction(async (client) => {
        let head = await lockHead(client, shard)
        for (let isLast = false; !isLast; ) {
          const bitten = await numberBatch(client, { ...options, batch }, { shard, head })
          head = bitten.head
          isLast = bitten.isLast
        }
        return work(client, head)
      })
    },
  }
}

async function lockHead(client: Client, shard: number): Promise<number> {
  const { rows } = await client.query<{ pos: string }>({
    name: 'sync-lock-head',
    text: 'SELECT pos FROM change_heads WHERE shard = $1 FOR UPDATE',
    values: [shard],
  })
  const [row] = rows
  if (!row) throw new Error(`there is no shard ${shard}`)
  return Number(row.pos)
}

async function pendingShards(postgres: Postgres): Promise<number[]> {
  const { rows } = await postgres.query<{ shard: number }>(
    'SELECT shard FROM change_heads h WHERE EXISTS (SELECT FROM change_pending p WHERE p.shard = h.shard) ORDER BY shard',
  )
  return rows.map(({ shard }) => shard)
}

/** An idle shard shows that it is looked after. What somebody numbers just now is left to him. */
async function refreshIdle(postgres: Postgres): Promise<void> {
  await postgres.query(
    `UPDATE change_heads SET at = now() WHERE shard IN (
        SELECT shard FROM change_heads h WHERE at < now() - interval '5 seconds'
          AND NOT EXISTS (SELECT FROM change_pending p WHERE p.shard = h.shard)
          AND (SELECT role FROM site) = 'leader'
        ORDER BY shard FOR UPDATE SKIP LOCKED)`,
  )
}

async function readHeads(database: Queryable): Promise<number[]> {
  const { rows } = await database.query<{ pos: string }>('SELECT pos FROM change_heads ORDER BY shard')
  return rows.map(({ pos }) => Number(pos))
}

interface Place {
  shard: number
  head: number
}
interface Bitten {
  /** Objects that were taken out of what is pending. */
  done: number
  head: number
  /** Whether nothing more was pending, but for what cannot be read. */
  isLast: boolean
}

/** Under the lock of the head, so whatever has become pending since its row was got is read by a later statement. */
async function numberBatch(
  client: Client,
  { types, batch = 500, onError }: SequencerOptions,
  { shard, head }: Place,
): Promise<Bitten> {
  const taken = await takePending(client, shard, batch)
  if (taken.rows === 0) return { done: 0, head, isLast: true }
  const { found, unreadable } = await readAll(client, types, taken.objects)
  for (const { object, error } of unreadable) onError?.(error, object)
  await postpone(
    client,
    shard,
    unreadable.map(({ object }) => object),
  )
  const newHead = await number(client, { shard, head }, found)
  return {
    done: found.length,
    head: newHead,
    // A batch of nothing but the unreadable would go round for ever.
    isLast: taken.rows < batch || found.length === 0,
  }
}

interface Unreadable {
  object: ObjectName
  error: unknown
}
interface Reading {
  found: Numbered[]
  unreadable: Unreadable[]
}

async function readAll(
  client: Client,
  types: readonly ReplicatedType[],
  objects: ObjectName[],
): Promise<Reading> {
  const reading: Reading = { found: [], unreadable: [] }
  for (const [name, ids] of Map.groupBy(objects, ({ type }) => type)) {
    const type = types.find((each) => each.type === name)
    const read = type ? await readType(client, type, ids) : unknownType(ids)
    reading.found.push(...read.found)
    reading.unreadable.push(...read.unreadable)
  }
  return reading
}

/** Such as of a newer release that runs beside this one: left to that. */
const unknownType = (objects: ObjectName[]): Reading => ({
  found: [],
  unreadable: objects.map((object) => ({
    object,
    error: new Error(`objects of the type ${object.type} are not known here`),
  })),
})

/** All at once; and when one of them cannot be read, each by itself, so that it holds up none but itself. */
async function readType(client: Client, type: ReplicatedType, objects: ObjectName[]): Promise<Reading> {
  try {
    return { found: await readIn(client, type, objects), unreadable: [] }
  } catch (error) {
    if (!isOfData(error)) throw error
    if (objects.length === 1) return { found: [], unreadable: objects.map((object) => ({ object, error })) }
  }
  const each: Reading = { found: [], unreadable: [] }
  for (const object of objects) {
    const read = await readType(client, type, [object])
    each.found.push(...read.found)
    each.unreadable.push(...read.unreadable)
  }
  return each
}

/** A connection that is gone, or a lock that was not got, says nothing of the object. */
const isOfData = (error: unknown): boolean => {
  const code = error instanceof Error && 'code' in error ? String(error.code) : ''
  return !/^(?:08|40|53|55|57|58|XX)|^E[A-Z]/.test(code) && !/terminated|timeout/i.test(messageOf(error))
}

async function readIn(client: Client, type: ReplicatedType, objects: ObjectName[]): Promise<Numbered[]> {
  await client.query('SAVEPOINT reading')
  try {
    const images = await type.read(
      objects.map(({ id }) => id),
      client,
    )
    await client.query('RELEASE SAVEPOINT reading')
    return objects.map((object) => numbered(object, type, images.get(object.id)))
  } catch (error) {
    await client.query('ROLLBACK TO SAVEPOINT reading')
    throw error
  }
}

const numbered = (object: ObjectName, type: ReplicatedType, image: Image | undefined): Numbered =>
  image
    ? { ...object, kind: 'upsert', hash: sha256(image.content), account: image.account }
    : { ...object, kind: type.absentKind, hash: null, account: null }

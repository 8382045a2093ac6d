import type { Readable } from 'node:stream'
import type { SiteClient } from '../../../platform/replication/site-client.ts'
import { createRemoteSite, type Speaker } from '../remote-site.ts'
import {
  CandidatesAnswer,
  type CandidatesRequest,
  createReader,
  type DigestAnswer,
  type HelloAnswer,
  protocol,
} from '../wire.ts'

export interface Promotion {
  lineage: string
  epoch: number
  heads: number[]
}

/** What a fail-over asks of the site that is to open. */
export interface OtherSite {
  /** What it is. Changes nothing there. */
  hello(): Promise<HelloAnswer>
  /** Compares the digests of a shard; `differing` is null when its cursor is elsewhere. */
  digest(shard: number, pos: number, digests: string[]): Promise<DigestAnswer>
  /** Has it take over. Again is no harm. */
  promote(to: Promotion): Promise<void>
}

/** The site that leads now, to the one that led before. */
export interface Heir {
  candidates(shard: number, objects: CandidatesRequest['objects']): Promise<CandidatesAnswer>
  /** Bytes of a body, which go before the object. */
  upload(id: string, size: number, bytes: Readable): Promise<void>
}

/** A fail-over waits for it: rather ask again than hang. */
const promoteMs = 5_000
const candidatesMs = 120_000

export const promotePath = '/v1/replication/promote'

export function createOtherSite(client: SiteClient, speaker: Speaker): OtherSite {
  const remote = createRemoteSite(client)
  return {
    hello: () => remote.hello(speaker, true),
    digest: (shard, pos, digests) => remote.digest(speaker, { shard, pos, digests }),
    promote: async (to) => {
      await client.post(promotePath, { protocol, ...to }, { timeoutMs: promoteMs })
    },
  }
}

/** @param lostAfter what it had when it took over, by shard */
export function createHeir(client: SiteClient, speaker: Speaker, lostAfter: number[]): Heir {
  const remote = createRemoteSite(client)
  const { lineage, epoch } = speaker
  return {
    candidates: async (shard, objects) =>
      readCandidates(
        await client.post(
          '/v1/replication/candidates',
          { protocol, lineage, epoch, lostAfter, shard, objects },
          { timeoutMs: candidatesMs },
        ),
      ),
    upload: (id, size, bytes) => remote.upload(speaker, { id, size, bytes }),
  }
}

const readCandidates = createReader(CandidatesAnswer)

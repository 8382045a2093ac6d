import type { Readable } from 'node:stream'
import { SITE_ANSWER_INVALID } from '../../platform/replication/client-errors.ts'
import type { SiteClient } from '../../platform/replication/site-client.ts'
import {
  ApplyAnswer,
  type ApplyRequest,
  BucketAnswer,
  type BucketRequest,
  createReader,
  DigestAnswer,
  type DigestRequest,
  HelloAnswer,
  PartsAnswer,
  type PartsAnswer as PartsAnswerType,
  type PartsRequest,
  PlanAnswer,
  type PlanRequest,
  protocol,
  RereadAnswer,
  type RereadRequest,
} from './wire.ts'

/** Who speaks to it, and as what. */
export interface Speaker {
  lineage: string
  epoch: number
  /** This site's name. */
  name: string
}

type Without<T> = Omit<T, 'protocol' | 'lineage' | 'epoch'>

/** The calls of another site. All throw what `SiteClient` does, also for an answer that does not fit. */
export interface RemoteSite {
  readonly site: string
  /** `challenge`: see enlisting.ts. */
  hello(
    speaker: Omit<Speaker, 'lineage'> & { lineage: string | null },
    look: boolean,
    challenge?: number,
  ): Promise<HelloAnswer>
  plan(speaker: Speaker, request: Without<PlanRequest>): Promise<PlanAnswer>
  apply(speaker: Speaker, request: Without<ApplyRequest>): Promise<ApplyAnswer>
  /** Sends parts ahead of an object that is too large for a request. */
  parts(speaker: Speaker, request: Without<PartsRequest>): Promise<PartsAnswerType>
  digest(speaker: Speaker, request: Without<DigestRequest>): Promise<DigestAnswer>
  bucket(speaker: Speaker, request: Without<BucketRequest>): Promise<BucketAnswer>
  reread(speaker: Speaker, request: Without<RereadRequest>): Promise<RereadAnswer>
  /** Sends bytes that go on their own. */
  upload(speaker: Speaker, upload: { id: string; size: number; bytes: Readable }): Promise<void>
}

const helloMs = 5_000
const largeAnswer = 67_108_864
const uploadMs = 3_600_000

export function createRemoteSite(client: SiteClient, signal?: AbortSignal): RemoteSite {
  const ask =
    <A>(path: string, read: (value: unknown) => A, wish: { timeoutMs?: number; maxBytes?: number } = {}) =>
    async (speaker: { lineage: string | null; epoch: number }, request: object) => {
      const { lineage, epoch } = speaker
      const body = { protocol, lineage, epoch, ...request }
      return readAs(
        client.site,
        read,
        await client.post(`/v1/replication/${path}`, body, { ...wish, signal }),
      )
    }
  const hello = ask('hello', readers.hello, { timeoutMs: helloMs })
  return {
    site: client.site,
    hello: (speaker, look, challenge) =>
      hello(speaker, { leader: speaker.name, look, ...(challenge === undefined ? {} : { challenge }) }),
    plan: ask('plan', readers.plan, { maxBytes: largeAnswer }),
    apply: ask('apply', readers.apply, { timeoutMs: 120_000 }),
    parts: ask('parts', readers.parts, { timeoutMs: 120_000 }),
    digest: ask('digest', readers.digest),
    bucket: ask('bucket', readers.bucket, { maxBytes: largeAnswer }),
    reread: ask('reread', readers.reread, { maxBytes: largeAnswer }),
    upload: async ({ lineage, epoch }, { id, size, bytes }) => {
      const headers = {
        'x-baton-protocol': String(protocol),
        'x-baton-lineage': lineage,
        'x-baton-epoch': String(epoch),
        'x-baton-size': String(size),
      }
      const path = `/v1/replication/bodies/${encodeURIComponent(id)}`
      await client.put(path, { bytes, headers }, { signal, timeoutMs: uploadMs })
    },
  }
}

function readAs<A>(site: string, read: (value: unknown) => A, value: unknown): A {
  try {
    return read(value)
  } catch (error) {
    throw SITE_ANSWER_INVALID({ site, reason: 'its answer has another form than expected' }, { cause: error })
  }
}

const readers = {
  hello: createReader(HelloAnswer),
  plan: createReader(PlanAnswer),
  apply: createReader(ApplyAnswer),
  parts: createReader(PartsAnswer),
  digest: createReader(DigestAnswer),
  bucket: createReader(BucketAnswer),
  reread: createReader(RereadAnswer),
}

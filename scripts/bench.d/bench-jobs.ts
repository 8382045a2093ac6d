import { Type } from 'typebox'
import { defineJob } from '../../src/platform/queues/job.ts'

// What a job costs when it does nothing, with a row in the ledger and without.

const payload = Type.Object({ body: Type.String(), column: Type.String(), n: Type.Integer() })

export const jobs = [
  defineJob({ name: 'accepted', queue: 'accepted', payload, run: async () => undefined }),
  defineJob({ name: 'durable', queue: 'durable', payload, run: async () => undefined }),
  defineJob({ name: 'volatile', queue: 'volatile', durable: false, payload, run: async () => undefined }),
]

// The peer of processing: a plain BullMQ Worker. RAW_PROCESSES of them, as many jobs at once as ours.
import { fork } from 'node:child_process'
import { Worker } from 'bullmq'
import { Redis } from 'ioredis'

const processes = Number(process.env['RAW_PROCESSES'] ?? 1)
if (process.argv[2] !== 'child') {
  const children = Array.from({ length: processes }, () => fork(import.meta.filename, ['child']))
  process.on('SIGTERM', () => {
    for (const child of children) child.kill('SIGKILL')
    process.exit(0)
  })
} else {
  const connection = new Redis(process.env['REDIS_URL'] ?? '', { maxRetriesPerRequest: null })
  new Worker('raw', async () => undefined, {
    connection,
    concurrency: Number(process.env['WORKER_CONCURRENCY']),
    removeOnComplete: { count: 0 },
  })
}

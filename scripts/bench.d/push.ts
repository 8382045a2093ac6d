import { measureCrypto } from './push-crypto.ts'
import { measureDelivery, measureOpenListens } from './push-listens.ts'
import { measurePending } from './push-pending.ts'
import { measureSending } from './push-sending.ts'
import type { BenchResult } from './result.ts'
import { startServers } from './servers.ts'

/** Pushes beside the web-push package, and beside a delayed job of raw BullMQ for each timeout. */
export async function run(): Promise<BenchResult> {
  const measures = [await measureCrypto()]
  const servers = await startServers()
  try {
    measures.push(...(await measureSending(servers)))
    measures.push(...(await measureDelivery(servers)))
    measures.push(...(await measureOpenListens(servers)))
    measures.push(...(await measurePending(servers)))
  } finally {
    await servers.stop()
  }
  return { name: 'push', measures }
}

import { createOtlpTracing } from '../../platform/tracing/otlp.ts'
import type { Tracing } from '../../platform/tracing.ts'
import { readVersion } from '../cli.ts'
import type { Ground } from '../compose.ts'

/** Longest that a process waits for its last traces to be taken when it stops, ms. */
const closeMs = 1_000

/** Undefined unless there is a collector. */
export async function openTracing(
  { config, log, releasers }: Ground,
  tier: 'web' | 'worker',
): Promise<Tracing | undefined> {
  const { otelEndpoint: endpoint, site } = config
  if (endpoint === undefined) return undefined
  const tracing = await createOtlpTracing({ endpoint, tier, site, version: readVersion(), log })
  releasers.add('traces', () => tracing.close(closeMs))
  return tracing
}

import type { Service } from '../../core/lifecycle.ts'
import { createReconciler } from '../../platform/queues/reconcile.ts'
import type { Registry } from '../../platform/queues/registry.ts'
import { createScheduler } from '../../platform/queues/schedule.ts'
import { createTroubleLog } from '../../platform/trouble-log.ts'
import type { Ground } from '../compose.ts'

/** What brings in work by itself. Every master runs it; Postgres sees to it that one of them does each thing. */
export function createIntake(ground: Ground, registry: Registry): Service[] {
  const { config, postgres, ledger, backend, clock, log, metrics, payloads } = ground
  const troubles = createTroubleLog(log, clock)
  const onError =
    (what: string) =>
    (error: unknown): void =>
      troubles.tell(`${what} has trouble and tries again`, error)
  return [
    createReconciler({
      postgres,
      ledger,
      backend,
      clock,
      queues: registry.queues,
      retention: { finishedMs: config.jobRetentionMs, failedMs: config.failedRetentionMs },
      onError: onError('the reconciler'),
      onRepaired: (repairs) => {
        log.info({ ...repairs }, 'the reconciler has mended the queue')
        for (const [kind, rows] of Object.entries(repairs)) {
          if (rows > 0) metrics.count('baton_reconciler_repairs_total', { kind }, rows)
        }
      },
    }),
    createScheduler({
      postgres,
      ledger,
      registry,
      clock,
      payloads,
      onError: onError('the scheduler'),
      onFired: (fired) => log.info({ ...fired }, 'a schedule has fired'),
    }),
  ]
}

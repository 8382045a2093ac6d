import { availableParallelism } from 'node:os'
import path from 'node:path'
import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** Scenarios that measure what they see, or load both cores: each of them has the machine to itself. */
const measured = [
  'bodies-connections',
  'bodies-queue',
  'push-emptied',
  'push-flood',
  'push-nodes',
  'worker-crash',
  'worker-roll',
].map((name) => `test/scenarios/${name}.test.ts`)

/** What takes longest, longest first: begun last, one of them alone would hold up the end. */
const longest = [
  'test/scenarios/demo.test.ts',
  'test/scenarios/push-outage.test.ts',
  'test/scenarios/push-crash.test.ts',
  'test/scenarios/state-kill.test.ts',
  'test/scenarios/worker-restore.test.ts',
  'test/scenarios/worker-network.test.ts',
  'test/scenarios/state-bad-input.test.ts',
  'test/scenarios/state-storm.test.ts',
  'test/scenarios/push-http.test.ts',
  'test/scenarios/bodies-payloads-http.test.ts',
  'test/scenarios/worker-stop.test.ts',
  'test/scenarios/push-race.test.ts',
  'test/scenarios/worker-boot.test.ts',
  'test/platform/queues/backends/redis.test.ts',
  'test/runtime/dashboard/stores-away.test.ts',
  'test/platform/postgres/embedded.test.ts',
  'test/platform/redis.test.ts',
  'test/platform/queues/backends/postgres.test.ts',
  'test/domain/bodies/crash.test.ts',
  'test/platform/queues/job-runner.test.ts',
]

/** The longest first within each project, in every run alike. Vitest asks for a class. */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const place = longest.indexOf(path.relative(import.meta.dirname, moduleId))
      return place < 0 ? longest.length : place
    }
    // Sorting keeps the order of equals: by project, and by size or by the durations of an earlier run.
    const order = await super.sort(files)
    return order.toSorted((a, b) => rank(a) - rank(b))
  }
}

export default defineConfig({
  test: {
    pool: 'forks',
    // Most tests wait for servers; many more than two a core only make the timed ones late.
    maxWorkers: Math.min(4, 2 * availableParallelism()),
    globalSetup: ['test/support/global-setup.ts'],
    setupFiles: ['test/support/leak-check.ts'],
    hookTimeout: 60_000,
    allowOnly: false,
    expect: { poll: { timeout: 15_000, interval: 20 } },
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        extends: true,
        test: {
          name: 'tests',
          include: ['test/**/*.test.ts'],
          exclude: ['test/scenarios/**'],
          testTimeout: 60_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: 'scenarios',
          include: ['test/scenarios/**/*.test.ts'],
          exclude: measured,
          // Systems of processes that are killed in parts: they wait far more than they work.
          maxWorkers: 5,
          testTimeout: 180_000,
          hookTimeout: 60_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          name: 'scenarios-measured',
          include: measured,
          maxWorkers: 1,
          testTimeout: 180_000,
          hookTimeout: 60_000,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
})

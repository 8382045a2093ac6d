import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'

/** Scenarios that measure what they see, or load both cores: each of them has the machine to itself. */
const measured = [
  'bodies-connections',
  'bodies-queue',
  'job-storm',
  'push-emptied',
  'push-flood',
  'push-http',
  'push-nodes',
  'worker-crash',
  'worker-roll',
].map((name) => `test/scenarios/${name}.test.ts`)

export default defineConfig({
  test: {
    pool: 'forks',
    // Most tests wait for servers; many more than one a core only make the timed ones late.
    maxWorkers: Math.min(4, Math.max(3, availableParallelism())),
    globalSetup: ['test/support/global-setup.ts'],
    setupFiles: ['test/support/leak-check.ts'],
    hookTimeout: 30_000,
    allowOnly: false,
    projects: [
      {
        extends: true,
        test: {
          name: 'tests',
          include: ['test/**/*.test.ts'],
          exclude: ['test/scenarios/**'],
          testTimeout: 20_000,
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
          maxWorkers: 4,
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

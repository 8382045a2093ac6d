import path from 'node:path'
import { defineConfig } from 'vitest/config'

/** Runs the planted leaks: see ../leak-check.test.ts. */
export default defineConfig({
  test: {
    root: path.resolve(import.meta.dirname, '../../..'),
    include: ['test/support/leaky/*.case.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    setupFiles: ['test/support/leak-check.ts'],
  },
})

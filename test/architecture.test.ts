import { readdir, readFile } from 'node:fs/promises'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { findViolations } from './support/architecture.ts'
import { projectRoot } from './support/processes.ts'

const readSources = async (): Promise<Map<string, string>> => {
  const files = await Promise.all(
    ['src', 'jobs'].map(async (folder) => {
      const entries = await readdir(path.join(projectRoot, folder), { recursive: true })
      return entries.filter((entry) => entry.endsWith('.ts')).map((entry) => path.posix.join(folder, entry))
    }),
  )
  const texts = files
    .flat()
    .map(async (file) => [file, await readFile(path.join(projectRoot, file), 'utf8')] as const)
  return new Map(await Promise.all(texts))
}

const planted = (file: string, text: string): string[] => findViolations(new Map([[file, text]]))

describe('the walls of the house', () => {
  it('stand', async () => {
    const sources = await readSources()
    expect(sources.size).toBeGreaterThan(20)
    expect(findViolations(sources)).toEqual([])
  })

  it.each([
    ['upward', 'src/core/a.ts', `import { b } from '../platform/b.ts'`, /imports upward/],
    [
      'upward, of a type',
      'src/platform/a.ts',
      `import type { B } from '../domain/push/b.ts'`,
      /imports upward/,
    ],
    [
      'upward, re-exported',
      'src/domain/push/a.ts',
      `export * from '../../../jobs/index.ts'`,
      /imports upward/,
    ],
    ['upward, by import()', 'jobs/a.ts', `const b = await import('../src/cli/compose.ts')`, /imports upward/],
    ['upward, for its effects', 'src/runtime/web/a.ts', `import '../../main.ts'`, /imports upward/],
    ['sideways in domain', 'src/domain/push/a.ts', `import { b } from '../state/b.ts'`, /imports sideways/],
    [
      'sideways in runtime',
      'src/runtime/web/a.ts',
      `import type { B } from '../worker/b.ts'`,
      /imports sideways/,
    ],
    [
      'over several lines',
      'src/domain/sync/a.ts',
      `import {\n  b,\n} from '../push/b.ts'`,
      /imports sideways/,
    ],
    [
      'tests',
      'src/platform/a.ts',
      `import { b } from '../../test/support/servers.ts'`,
      /outside of the house/,
    ],
    ['a package into core', 'src/core/a.ts', `import pino from 'pino'`, /core takes nothing but node:/],
    ['bullmq into a domain', 'src/domain/push/a.ts', `import type { Job } from 'bullmq'`, /imports bullmq/],
    [
      'ioredis into the queues',
      'src/platform/queues/a.ts',
      `import { Redis } from 'ioredis'`,
      /imports ioredis/,
    ],
    [
      'fastify into the worker',
      'src/runtime/worker/a.ts',
      `import fastify from 'fastify'`,
      /imports fastify/,
    ],
    [
      'a fastify plugin into jobs',
      'jobs/a.ts',
      `import cookie from '@fastify/cookie'`,
      /imports @fastify\/cookie/,
    ],
    ['pg into a domain', 'src/domain/state/a.ts', `import pg from 'pg'`, /imports pg/],
    ['a part of a package', 'src/cli/a.ts', `import x from 'pg/lib/utils.js'`, /imports pg/],
  ])('catch an import: %s', (_what, file, text, expected) => {
    expect(planted(file, text)).toEqual([expect.stringMatching(expected)])
  })

  it.each([
    ['process.env', 'src/platform/redis.ts', `const url = process.env['REDIS_URL']`],
    ['process.env', 'src/cli/compose.ts', `const { PORT } = process.env`],
    ['process.env', 'src/cli/compose.ts', `import { env } from 'node:process'`],
    ['the time of day', 'src/platform/log.ts', 'const at = Date.now()'],
    ['the time of day', 'src/domain/push/a.ts', 'const at = new Date()'],
    ['process.exit', 'src/runtime/web/a.ts', 'process.exit(1)'],
    ['process.on', 'src/runtime/worker/a.ts', `process.on('SIGTERM', stop)`],
    ['process.on', 'src/runtime/worker/a.ts', `process.once('SIGTERM', stop)`],
  ])('catch a word: %s in %s', (name, file, text) => {
    expect(planted(file, text)).toEqual([`${file}: reads ${name}`])
  })

  it('catch a file that belongs nowhere', () => {
    expect(planted('src/utils/a.ts', '')).toEqual(['src/utils/a.ts: belongs to no tier'])
  })

  it.each([
    ['downward', 'src/domain/push/a.ts', `import { b } from '../../platform/b.ts'`],
    ['within a room', 'src/domain/push/a.ts', `import { b } from './providers/b.ts'`],
    ['from a runtime to a domain', 'src/runtime/web/a.ts', `import { b } from '../../domain/push/b.ts'`],
    ['bullmq at home', 'src/platform/queues/backends/redis.ts', `import { Queue } from 'bullmq'`],
    ['the environment at home', 'src/platform/config/config.ts', 'read(process.env)'],
    ['the time at home', 'src/core/clock.ts', 'Date.now()'],
    ['a given instant as text', 'src/platform/log.ts', 'new Date(epochMs).toISOString()'],
    ['an address in a text', 'src/platform/a.ts', `const url = 'http://localhost' // not process.env`],
    ['what a comment says', 'src/platform/a.ts', '/** Not Date.now(), see clock.ts. */'],
    ['an exit code', 'src/cli/a.ts', 'process.exitCode = 1'],
  ])('let pass: %s', (_what, file, text) => {
    expect(planted(file, text)).toEqual([])
  })
})

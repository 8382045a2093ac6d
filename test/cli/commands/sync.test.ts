import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it } from 'vitest'
import { migrateQueues } from '../../../src/platform/queues/migrate.ts'
import { createFiveTypes } from '../../domain/sync/five-types.ts'
import { openSite, secret } from '../../domain/sync/replay-pair.ts'
import { operator } from '../../runtime/web/web-harness.ts'
import { testDatabase } from '../../support/databases.ts'
import { atEndOfTest } from '../../support/processes.ts'
import { type Ran, runBaton } from '../run-baton.ts'

it('adds, shows, steers and removes a replica, and tells by its exit code when somebody has to look', async () => {
  const [{ url }, there, folder] = await Promise.all([
    testDatabase(),
    openSite('b', createFiveTypes(new Map())),
    mkdtemp(path.join(tmpdir(), 'baton-sync-cli-')),
  ])
  atEndOfTest(() => rm(folder, { recursive: true, force: true }))
  await migrateQueues(url)
  const env = {
    DATABASE_URL: url,
    SITE: 'a',
    BATON_SECRET: secret,
    BODY_STORES: `file:${folder}/one,file:${folder}/two`,
  }
  const sync = (...args: string[]): Promise<Ran> => runBaton(['sync', ...args], { env })

  const alone = await sync('status')
  expect(alone).toMatchObject({ code: 0, stdout: 'a is alone, epoch 1, intake open\n' })
  const wrong = await sync('add', 'b', '--url', there.url, '--key', 'a-key-that-nobody-knows')
  expect(wrong.code).toBe(1)
  expect(wrong.stderr).toContain('[SITE_REFUSED]')
  const added = await sync('add', 'b', '--url', there.url, '--key', operator)
  expect(added.code).toBe(0)
  expect(added.stdout).toContain(`replica  b  ${there.url}`)
  expect(added.stdout + added.stderr).not.toContain(operator)
  const status = await sync('status', '--json')
  expect(status.code).toBe(0)
  expect(JSON.parse(status.stdout)).toMatchObject({
    site: { name: 'a', role: 'leader', pending: { changes: 0 } },
    replicas: [{ name: 'b', paused: false, quarantine: { failed: 0, mismatch: 0, held: 0 }, fuses: [] }],
  })
  const approved = await sync('approve', 'b', '--plan', '00000000-0000-7000-8000-000000000000')
  expect(approved.code).toBe(1)
  expect(approved.stderr).toContain('[FUSE_NOT_FOUND]')
  const neither = await sync('approve', 'b')
  expect(neither.stderr).toContain('[INPUT_INVALID]')
  expect((await sync('pause', 'b')).stdout).toContain('paused')
  expect((await sync('verify', 'b')).stdout).toContain('another one is asked for')
  const removed = await sync('remove', 'b')
  expect(removed).toMatchObject({ code: 0, stdout: 'b is no replica of this site any more\n' })
  expect((await sync('resume', 'b')).stderr).toContain('[REPLICA_NOT_FOUND]')
}, 60_000)

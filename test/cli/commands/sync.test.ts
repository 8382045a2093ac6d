import { createHash } from 'node:crypto'
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it } from 'vitest'
import { createPostgres } from '../../../src/platform/postgres/postgres.ts'
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
  expect(await sync('leave')).toMatchObject({ code: 0, stdout: 'this site is alone\n' })
  expect((await sync('status')).stdout).toContain('a is alone')
}, 60_000)

it('lists and shows what is in the trash, and restores it', async () => {
  const [{ url }, folder] = await Promise.all([
    testDatabase(),
    mkdtemp(path.join(tmpdir(), 'baton-trash-cli-')),
  ])
  atEndOfTest(() => rm(folder, { recursive: true, force: true }))
  await migrateQueues(url)
  const postgres = createPostgres({ url, max: 2, applicationName: 'test', onError: () => undefined })
  atEndOfTest(() => postgres.close())
  const stores = `file:${folder}/one,file:${folder}/two`
  const env = { DATABASE_URL: url, BATON_SECRET: secret, BODY_STORES: stores }
  const sync = (...args: string[]): Promise<Ran> => runBaton(['sync', ...args], { env })

  expect((await sync('trash')).stdout).toBe('nothing is in the trash\n')
  const device = { id: 'd1', user: 'anna', groups: [], transports: [] }
  const generation = '1'
  const registered = { generation, registeredAt: '2026-01-01T00:00:00.000000Z' }
  const hash = createHash('sha256').update('part').digest('hex')
  await postgres.query(
    `INSERT INTO sync_trash (type, id, reason, content, parts, epoch) VALUES ('device', 'd1', 'conflict', $1, $2, 1)`,
    [
      JSON.stringify({ ...device, ...registered }),
      JSON.stringify([{ sha256: hash, bytes: Buffer.from('part').toString('base64') }]),
    ],
  )
  const listed = await sync('trash', '--reason', 'conflict')
  expect(listed.stdout).toMatch(/^ +1 {2}\S+Z {2}conflict +\d+ B {2}device d1\n$/)
  expect((await sync('trash', '--reason', 'other')).stderr).toContain('[INPUT_INVALID]')
  const shown = await sync('trash', '--show', '1', '--parts', path.join(folder, 'parts'))
  expect(JSON.parse(shown.stdout)).toMatchObject({
    n: 1,
    content: { user: 'anna' },
    parts: [{ sha256: hash, size: 4 }],
  })
  expect(await readdir(path.join(folder, 'parts'))).toEqual([hash])
  expect(await readFile(path.join(folder, 'parts', hash), 'utf8')).toBe('part')
  expect((await sync('restore', 'x')).stderr).toContain('[INPUT_INVALID]')
  expect((await sync('restore', '1')).stdout).toBe('device d1 is restored\n')
  await postgres.query(`UPDATE devices SET user_id = 'otto'`)
  const occupied = await sync('restore', '1')
  expect(occupied.code).toBe(1)
  expect(occupied.stderr).toContain('[TRASH_OCCUPIED]')
  expect((await sync('restore', '1', '--yes')).stdout).toContain('what was there is in the trash')
  const { rows } = await postgres.query('SELECT user_id FROM devices')
  expect(rows).toEqual([{ user_id: 'anna' }])
  const audit = await postgres.query('SELECT action, subject FROM audit_log')
  expect(audit.rows).toEqual(
    Array.from({ length: 2 }, () => ({ action: 'trash.restore', subject: 'device d1' })),
  )
}, 60_000)

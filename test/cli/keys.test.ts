import { beforeAll, expect, it } from 'vitest'
import { testDatabase } from '../support/databases.ts'
import { runBaton } from './run-baton.ts'

let env: Record<string, string>
beforeAll(async () => {
  env = { DATABASE_URL: (await testDatabase()).url }
})

const keys = (...args: string[]) => runBaton(['keys', ...args], { env })

it('are made, listed and revoked by the whole key, which no message repeats', async () => {
  const none = await keys('list')
  expect(none.stdout).toBe('')
  expect(none.stderr).toContain('baton keys create')
  const made = await keys('create', '--role', 'producer', '--name', ' shop ')
  const key = made.stdout.trim()
  expect(made.stderr).toContain('producer shop, id')
  const revoked = await keys('revoke', key)
  expect(revoked.code).toBe(0)
  expect(revoked.stdout).toContain('revoked')
  const again = await keys('revoke', `${key.slice(0, -1)}x`)
  expect(again.code).toBe(1)
  expect(again.stderr).toContain('[KEY_NOT_FOUND]')
  for (const { stdout, stderr } of [revoked, again]) expect(stdout + stderr).not.toContain(key.slice(12, 40))
})

it('are revoked by what a list shows', async () => {
  const made = JSON.parse(
    (await keys('create', '--role', 'viewer', '--name', 'eyes', '--json')).stdout,
  ) as Record<string, string>
  const shown = (await keys('list')).stdout.split('\n').find((line) => line.includes(made['id'] ?? ''))
  const prefix = shown?.split(/\s+/)[1] ?? ''
  expect(prefix).toMatch(/^baton_[0-9a-f]{6}…$/)
  const { code, stdout } = await keys('revoke', prefix, '--json')
  expect(code).toBe(0)
  expect(JSON.parse(stdout)).toMatchObject({ id: made['id'], name: 'eyes', revokedAt: expect.any(String) })
})

import { expect, it } from 'vitest'
import { newId } from '../../../src/core/ids.ts'
import { prunePushes } from '../../../src/domain/push/prune.ts'
import { refreshStatistics } from '../../../src/domain/push/statistics.ts'
import { usePushGround } from './ground.ts'

const ground = usePushGround()
const day = 86_400_000

it('prunes what was closed before the retention, and nothing else', async () => {
  const { device, acceptance, push, postgres } = ground()
  const phone = await device()
  const old = (): string => newId(Date.now() - 10 * day)
  const [closedLongAgo, closedLately, open, fresh] = [old(), old(), old(), newId(Date.now())]
  await acceptance().accept([closedLongAgo, closedLately, open, fresh].map((id) => ({ ...push(phone), id })))
  const close = (id: string, ago: string): Promise<unknown> =>
    postgres.query(`UPDATE pushes SET closed_at = now() - $2::interval, state = 'confirmed' WHERE id = $1`, [
      id,
      ago,
    ])
  await close(closedLongAgo, '9 days')
  await close(closedLately, '1 day')
  await close(fresh, '0')
  expect(await prunePushes(postgres, 7 * day)).toBe(1)
  const { rows } = await postgres.query<{ id: string }>('SELECT id::text FROM pushes WHERE device = $1', [
    phone,
  ])
  expect(new Set(rows.map((row) => row.id))).toEqual(new Set([closedLately, open, fresh]))
})

it('tells the planner when a table has grown, and only then', async () => {
  const { device, acceptance, push, postgres } = ground()
  const phone = await device()
  await refreshStatistics(postgres)
  expect(await refreshStatistics(postgres)).toEqual([])
  const payload = JSON.stringify('x'.repeat(1_000))
  await acceptance().accept(Array.from({ length: 1_000 }, () => push(phone, { payload })))
  expect(await refreshStatistics(postgres)).toEqual(['pushes'])
  expect(await refreshStatistics(postgres)).toEqual([])
})

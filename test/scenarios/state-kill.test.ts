import { randomInt } from 'node:crypto'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { plant } from '../support/phones.ts'
import { createStateSite, type StateSite, states } from '../support/state-site.ts'

let site: StateSite
beforeAll(async () => {
  site = await createStateSite()
})
afterAll(() => site.release())

/** Lets a command work for a moment, then takes it away, or the database under it. */
async function strike(which: 'engine' | 'postgres', args: string[], mostMs: number): Promise<void> {
  const child = site.state(...args)
  // From when it has begun: on a busy machine its start alone may take seconds.
  await child.waitForLine(/Going on|Plan/)
  await pause(randomInt(mostMs))
  if (which === 'postgres') {
    await site.postgres.kill()
    await pause(randomInt(300))
    await site.postgres.restart()
    // The engine outlives it and waits; what it does next is struck as well.
    await pause(randomInt(600))
  }
  await child.kill()
}

describe('a migration whose engine and whose Postgres are killed at random', () => {
  it('goes on from where it was, twenty times, and ends with the same states on the other side', async () => {
    const root = path.join(site.folder, 'source')
    const planted = plant({ root, devices: 120, statesPerDevice: 12 })
    const [from, to] = [`file:${root}`, await site.zpush()]
    const slow = ['migrate', '--from', from, '--to', to, '--yes', '--no-scan', '--states-per-second', '450']
    const before = states(await site.listing(from))
    const moved: number[] = []
    for (let blow = 0; blow < 14; blow++) {
      await strike(blow % 2 === 0 ? 'engine' : 'postgres', slow, 1_500)
      const { migrations } = await site.json<{ migrations: { counts: { moved: number } }[] }>('status')
      expect(migrations.length).toBeLessThanOrEqual(1)
      moved.push(migrations[0]?.counts.moved ?? 0)
    }
    // Nothing that was moved was lost again, and each run brought something.
    expect(moved).toEqual(moved.toSorted((a, b) => a - b))
    expect(new Set(moved).size).toBeGreaterThan(2)
    for (let blow = 0; blow < 6; blow++) {
      const { migrations } = await site.json<{ migrations: { id: string; phase: string }[] }>('status')
      const [migration] = migrations
      if (!migration || migration.phase === 'watching') break
      const again = ['ready', 'copying'].includes(migration.phase)
        ? ['cut-over', migration.id, '--yes']
        : ['migrate', '--resume', migration.id]
      await strike(blow % 2 === 0 ? 'engine' : 'postgres', again, 3_000)
    }
    const { migrations } = await site.json<{ migrations: { id: string; phase: string }[] }>('status')
    const id = migrations[0]?.id ?? ''
    await site.run('migrate', '--resume', id)
    if ((await site.json('status', id)).phase === 'ready') await site.run('cut-over', id, '--yes')
    const over = await site.json('status', id)
    expect(over).toMatchObject({
      phase: 'watching',
      paused: false,
      counts: { total: 120, moved: 120, pending: 0, failed: 0, states: planted },
      quarantine: { held: 0 },
    })
    expect(states(await site.listing(to))).toEqual(before)
    expect(states(await site.listing(from))).toEqual(before)
    expect(await site.withStore(to, (store) => store.version())).toBe('2')
    expect(await site.withStore(from, (store) => store.version())).toBe(`baton:${id}`)
    expect(await site.json('verify', id)).toMatchObject({ equal: planted, differingDevices: 0 })
    console.log(`moved after each blow: ${moved.join(' ')}; ${over.counts.states} states verified`)
  })

  it('rolls back through kills, too, and brings back what was written', async () => {
    const root = path.join(site.folder, 'back')
    plant({ root, devices: 60, statesPerDevice: 6 })
    const [from, to] = [`file:${root}`, await site.zpush()]
    const { id } = await site.json('migrate', '--from', from, '--to', to, '--yes', '--no-scan', '--cut-over')
    await site.withStore(to, async (store) => {
      for await (const device of store.devices()) {
        const key = { type: '', uuid: '11111111-2222-4333-8444-555555555555', counter: 1 } as const
        await store.set(device, key, Buffer.from(`i:${randomInt(1_000)};`))
      }
    })
    const expected = states(await site.listing(to))
    for (let blow = 0; blow < 4; blow++) {
      await strike(blow % 2 === 0 ? 'engine' : 'postgres', ['roll-back', id, '--yes'], 2_800)
    }
    if ((await site.json('status', id)).phase !== 'rolled-back') await site.run('roll-back', id, '--yes')
    expect(await site.json('status', id)).toMatchObject({ phase: 'rolled-back', counts: { failed: 0 } })
    expect(states(await site.listing(from))).toEqual(expected)
    expect(await site.withStore(from, (store) => store.version())).toBe('2')
  })
})

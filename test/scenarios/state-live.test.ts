import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { deviceName, plant, startPhones } from '../support/phones.ts'
import { createStateSite, type StateSite, states } from '../support/state-site.ts'

let site: StateSite
beforeAll(async () => {
  site = await createStateSite()
})
afterAll(() => site.release())

const figures: { states: number; gateMs: number }[] = []

async function migrateLive(name: string, statesPerDevice: number): Promise<void> {
  const root = path.join(site.folder, name)
  const planted = plant({ root, devices: 200, statesPerDevice })
  const from = `file:${root}`
  const to = await site.zpush()
  await site.withStore(from, async (store) => {
    const devices = Array.from({ length: 200 }, (_each, index) => deviceName(index))
    const phones = startPhones({ store, devices, lanes: 4, pauseMs: 20 })
    try {
      const copied = await site.json('migrate', '--from', from, '--to', to, '--yes', '--no-scan')
      expect(copied.phase).toBe('ready')
      const over = await site.json('cut-over', copied.id, '--yes')
      expect(over).toMatchObject({
        phase: 'watching',
        counts: { pending: 0, failed: 0 },
        quarantine: { held: 0 },
      })
      expect(phones.served).toBeGreaterThan(50)
      expect(phones.refused).toBeGreaterThan(0)
      figures.push({ states: planted, gateMs: over.gate.lastClosedMs ?? Number.NaN })
      // Nobody has written to the source since: what it had at the gate is what it has.
      const left = states(await site.listing(from))
      expect(left.length).toBeGreaterThan(planted)
      expect(states(await site.listing(to))).toEqual(left)
      expect(await store.version()).toBe(`baton:${over.id}`)
    } finally {
      await phones.stop()
    }
  })
}

describe('a migration while phones write to the source', () => {
  it('ends with every state that the source had at the gate, the gate closed for under five seconds', async () => {
    await migrateLive('small', 4)
    expect(figures[0]?.gateMs).toBeLessThan(5_000)
  })

  it('closes the gate for no longer with ten times the states', async () => {
    await migrateLive('large', 40)
    const [small, large] = figures
    console.log(`gate: ${JSON.stringify(figures)}`)
    expect(large?.states).toBeGreaterThan(8 * (small?.states ?? 0))
    expect(large?.gateMs).toBeLessThan((small?.gateMs ?? 0) + 1_500)
  })
})

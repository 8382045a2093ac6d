import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { deviceName, plant, startPhones } from '../support/phones.ts'
import { eventually } from '../support/processes.ts'
import { createStateSite, type StateSite, states } from '../support/state-site.ts'

let site: StateSite
beforeAll(async () => {
  site = await createStateSite()
})
afterAll(() => site.release())

describe('a roll-back after five hundred writes to the target', () => {
  it.each(['zpush', 'baton'] as const)('brings all of them from %s back to the files', async (kind) => {
    const root = path.join(site.folder, kind)
    plant({ root, devices: 200, statesPerDevice: 6 })
    const [from, to] = [`file:${root}`, await site[kind]()]
    const { id } = await site.json('migrate', '--from', from, '--to', to, '--yes', '--no-scan', '--cut-over')
    const devices = Array.from({ length: 200 }, (_each, index) => deviceName(index))
    await site.withStore(to, async (store) => {
      const phones = startPhones({ store, devices, lanes: 4, pauseMs: 1 })
      try {
        await eventually(() => expect(phones.served).toBeGreaterThan(500), { timeoutMs: 60_000 })
        // They go on until the gate is closed in front of them.
        const back = await site.json('roll-back', id, '--yes')
        expect(back.phase).toBe('rolled-back')
        expect(back.rollBack?.devices).toBeGreaterThan(100)
        expect(phones.refused).toBeGreaterThan(0)
        console.log(
          `${phones.served} writes to ${kind}, ${back.rollBack?.devices} devices brought back, gate ${back.gate.lastClosedMs} ms`,
        )
      } finally {
        await phones.stop()
      }
    })
    const expected = states(await site.listing(to))
    expect(states(await site.listing(from))).toEqual(expected)
    expect(await site.withStore(from, (store) => store.version())).toBe('2')
    expect(await site.withStore(to, (store) => store.version())).toBe(`baton:${id}`)
  })
})

import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { cp, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { openVersion } from '../../../src/domain/state/store.ts'
import { createRig, quick, type Rig } from '../../support/state.ts'
import { listing, oracle, samples, treeChecksum, unpack } from '../../support/zpush.ts'

let rig: Rig
let folder: string
beforeEach(async () => {
  rig = await createRig()
  folder = await mkdtemp(path.join(tmpdir(), 'baton-migration-'))
})
afterEach(async () => {
  await rig.release()
  await rm(folder, { recursive: true })
})

async function listingOf(url: string): Promise<string[]> {
  const store = rig.open(url)
  try {
    return await listing(store)
  } finally {
    await store.close()
  }
}

describe('the clean sample', () => {
  let sample: string
  beforeAll(async () => {
    sample = await unpack('states-clean')
  })
  afterAll(() => rm(sample, { recursive: true }))

  it('goes to Z-Push’s tables, to Baton’s own, and back to files, each time the same line by line and byte by byte', async () => {
    const expected = oracle('clean')
    const source = path.join(folder, 'source')
    await cp(path.join(sample, 'clean'), source, { recursive: true, preserveTimestamps: true })
    const before = treeChecksum(source)
    const stops = [
      `file:${source}`,
      await rig.zpush(),
      await rig.baton(),
      `file:${path.join(folder, 'back')}`,
    ]
    for (const [index, to] of stops.slice(1).entries()) {
      const from = stops[index] ?? ''
      const migration = await rig.move(from, to)
      expect(migration).toMatchObject({ phase: 'ready', error: undefined })
      const over = await rig.ask(migration.id, 'cut-over')
      expect(over).toMatchObject({ phase: 'watching', error: undefined })
      expect(await rig.figures.progress(migration.id)).toMatchObject({ quarantine: { held: 0, remarks: 0 } })
      expect(await listingOf(to)).toEqual(expected)
      const left = rig.open(from)
      expect(await left.version()).toBe(`baton:${migration.id}`)
      await left.close()
    }
    // The source is as it was but for its gate.
    await writeFile(path.join(source, 'settings'), readFileSync(path.join(sample, 'clean/settings')))
    expect(treeChecksum(path.join(folder, 'back'), { times: false })).toBe(
      treeChecksum(source, { times: false }),
    )
    expect(treeChecksum(source, { times: false })).toBe(
      treeChecksum(path.join(sample, 'clean'), { times: false }),
    )
    expect(before).toMatch(/^\w{64}$/)
  }, 90_000)
})

describe('the dirty sample', () => {
  it('moves every sound device whole, names the rest, leaves the source alone, and changes nothing when it goes on', async () => {
    const sample = await unpack('states-dirty')
    try {
      const source = path.join(sample, 'dirty')
      const before = treeChecksum(source)
      const to = await rig.zpush()
      const migration = await rig.move(`file:${source}`, to)
      expect(treeChecksum(source)).toBe(before)
      const lines = await rig.figures.quarantine(migration.id, 10_000)
      const held = lines.filter((line) => line.held)
      const heldDevices = new Set(held.map((line) => line.device))
      expect(held.filter((line) => line.size > 0 && !line.sha256)).toEqual([])

      const manifest = readFileSync(path.join(samples, 'dirty-manifest.tsv'), 'utf8')
        .trim()
        .split('\n')
        .slice(1)
      const troubled = new Set(manifest.map((line) => line.split('\t')[1]))
      const isSound = (line: string): boolean => {
        const [kind, first, second] = line.split('\t')
        const device = kind === 'user' ? second : first
        return kind !== 'version' && kind !== 'sync' && !troubled.has((device ?? '').toLowerCase())
      }
      const moved = await listingOf(to)
      const expected = oracle('dirty').filter(isSound)
      expect(expected.length).toBeGreaterThan(200)
      expect(moved.filter((line) => isSound(line))).toEqual(expected)
      // What was not moved of the others has a line each: nothing is silently away.
      const movedLines = new Set(moved)
      const away = (await listingOf(`file:${source}`)).filter(
        (line) => line.startsWith('state\t') && !movedLines.has(line),
      )
      expect(away.length).toBeGreaterThan(5)
      expect(away.filter((line) => !heldDevices.has(line.split('\t')[1] ?? ''))).toEqual([])

      const again = await rig.ask(migration.id, 'cut-over')
      expect(again).toMatchObject({ phase: 'watching', error: undefined })
      expect((await rig.figures.quarantine(migration.id, 10_000)).map((line) => line.name)).toEqual(
        lines.map((line) => line.name),
      )
      expect((await listingOf(to)).filter((line) => line.startsWith('state'))).toEqual(
        moved.filter((line) => line.startsWith('state')),
      )
    } finally {
      await rm(sample, { recursive: true })
    }
  }, 60_000)
})

/** A small directory of Z-Push's: devices of some states each. */
async function makeSource(devices: number): Promise<string> {
  const root = path.join(folder, `small-${randomBytes(3).toString('hex')}`)
  const store = rig.open(`file:${root}`)
  await store.prepare(openVersion)
  for (let index = 0; index < devices; index++) {
    const device = `dev${String(index).padStart(4, '0')}`
    await store.set(device, { type: 'devicedata', uuid: '', counter: 0 }, Buffer.from('i:1;'))
    for (const counter of [1, 2]) {
      const uuid = '11111111-2222-4333-8444-555555555555'
      await store.set(device, { type: '', uuid, counter }, Buffer.from(`s:3:"a${index % 10}${counter}";`))
    }
    await store.link(Buffer.from(`user${index % 3}`), device)
  }
  return root
}

describe('a roll-back', () => {
  it('brings back what was written, removed, begun and linked on the target, and leaves held files alone', async () => {
    const root = await makeSource(12)
    const broken = path.join(root, '5/0/dev0005-11111111-2222-4333-8444-555555555555-7')
    await writeFile(broken, 's:9:"cut')
    const to = await rig.zpush()
    const { id } = await rig.move(`file:${root}`, to)
    await rig.ask(id, 'cut-over')
    const target = rig.open(to)
    const key = { type: '', uuid: '11111111-2222-4333-8444-555555555555', counter: 3 } as const
    await target.set('dev0001', key, Buffer.from('i:3;'))
    await target.get('dev0001', key, { clean: true })
    await target.set('dev0005', key, Buffer.from('i:3;'))
    await target.clean('dev0002', { ...key, counter: 0 })
    await target.clean('dev0002', { type: 'devicedata', uuid: '', counter: 0 })
    await target.set('dev9999', { type: 'devicedata', uuid: '', counter: 0 }, Buffer.from('i:9;'))
    await target.link(Buffer.from('new'), 'dev9999')
    await target.unlink(Buffer.from('user0'), 'dev0000')
    const expected = await listing(target)
    const over = await rig.ask(id, 'roll-back')
    expect(over).toMatchObject({ phase: 'rolled-back', backDevices: 4 })
    expect(await target.version()).toBe(`baton:${id}`)
    await target.close()
    const back = (await listingOf(`file:${root}`)).filter((line) => !/\tdev0005\t.*\t7\t8\t/.test(line))
    expect(back).toEqual(expected)
    expect(readFileSync(broken, 'utf8')).toBe('s:9:"cut')
    expect((await readdir(path.dirname(broken))).length).toBe(5)
  })
})

describe('a roll-back after a storm', () => {
  it('does not bring the losses of the target back, and brings what was written', async () => {
    const root = await makeSource(12)
    const to = await rig.zpush()
    const before = (await listingOf(`file:${root}`)).filter((line) => line.startsWith('state'))
    const { id } = await rig.move(`file:${root}`, to)
    await rig.ask(id, 'cut-over')
    const target = rig.open(to)
    const key = { type: '', uuid: '11111111-2222-4333-8444-555555555555', counter: 3 } as const
    await target.set('dev0001', key, Buffer.from('i:3;'))
    for (const device of ['dev0002', 'dev0003', 'dev0004']) await target.clean(device, { ...key, counter: 0 })
    await target.close()
    await rig.database.query(`UPDATE state_migrations SET storm = '{"exact": true}' WHERE id = $1`, [id])
    await rig.ask(id, 'roll-back')
    const after = (await listingOf(`file:${root}`)).filter((line) => line.startsWith('state'))
    expect(after.filter((line) => !before.includes(line))).toEqual([expect.stringContaining('\t3\t4\t')])
    expect(before.filter((line) => !after.includes(line))).toEqual([])
  })
})

describe('several engines', () => {
  it('share one migration by device, each device once', async () => {
    const root = await makeSource(60)
    const to = await rig.zpush()
    const { id } = await rig.migrations.create({
      id: '00000000-0000-7000-8000-000000000001',
      sourceUrl: `file:${root}`,
      targetUrl: to,
      options: { ...quick, statesPerSecond: 400 },
    })
    const { runMigration } = await import('../../../src/domain/state/migration/engine.ts')
    const until = (each: { phase: string }): boolean => each.phase === 'ready'
    await Promise.all(['one', 'two', 'three'].map((name) => runMigration(id, { ...rig.engine(name), until })))
    expect(await rig.figures.progress(id)).toMatchObject({
      devices: { total: 60, moved: 60, pending: 0 },
      states: 180,
    })
  })
})

import { readFileSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { kindOf, troubleKinds } from '../../../src/domain/state/inspect/troubles.ts'
import { type ScanReport, scanStore } from '../../../src/domain/state/scan.ts'
import { createFileStore } from '../../../src/domain/state/stores/file.ts'
import { oracle, samples, treeChecksum, unpack } from '../../support/zpush.ts'

const clock = createSystemClock()
const scan = (root: string): Promise<ScanReport> =>
  scanStore({ store: createFileStore({ root, clock }), clock })

describe('a scan of the clean sample', () => {
  let folder: string
  beforeAll(async () => {
    folder = await unpack('states-clean')
  })
  afterAll(() => rm(folder, { recursive: true }))

  it('counts what Z-Push counts, finds no trouble and writes nothing', async () => {
    const root = path.join(folder, 'clean')
    const before = treeChecksum(root)
    const report = await scan(root)
    const lines = oracle('clean').map((line) => line.split('\t'))
    const states = lines.filter(([kind]) => kind === 'state')
    expect(report).toMatchObject({
      devices: new Set(states.map(([, device]) => device)).size,
      states: states.length,
      links: lines.filter(([kind]) => kind === 'user').length,
      bytes: states.reduce((sum, line) => sum + Number(line[5]), 0),
      counts: { note: 0, warning: 0, held: 0 },
      troubles: [],
    })
    // The whole sample, where it is at hand, or the part of it that the project brings along.
    const whole = !samples.includes('fixtures')
    expect([report.devices, report.states, report.links]).toEqual(whole ? [200, 4307, 280] : [11, 219, 15])
    expect(treeChecksum(root)).toBe(before)
  })
})

describe('a scan of the dirty sample', () => {
  let folder: string
  let report: ScanReport
  let checksums: [string, string]
  beforeAll(async () => {
    folder = await unpack('states-dirty')
    const root = path.join(folder, 'dirty')
    const before = treeChecksum(root)
    report = await scan(root)
    checksums = [before, treeChecksum(root)]
  })
  afterAll(() => rm(folder, { recursive: true }))

  it('changes nothing', () => {
    expect(checksums[1]).toBe(checksums[0])
  })

  const manifest = readFileSync(path.join(samples, 'dirty-manifest.tsv'), 'utf8').trim().split('\n').slice(1)
  // What the manifest names by the device that it was planted beside: foreign files have no device, a ghost has its own.
  const elsewhere = new Map([
    ['foreign-files', ''],
    ['users-lists-ghost', 'deadbeefdeadbeef'],
  ])
  it.each(manifest.map((line) => line.split('\t')))('names %s of %s', (code = '', device = '') => {
    const wanted = elsewhere.get(code) ?? device
    const found = report.troubles.filter((each) => each.code === code && each.device.toLowerCase() === wanted)
    expect(found.length).toBeGreaterThan(0)
    expect(Object.keys(troubleKinds)).toContain(code)
  })

  it('names no trouble of a device that has none', () => {
    const planted = new Set(manifest.map((line) => line.split('\t')[1]))
    const others = report.troubles.filter(
      (each) => each.device !== '' && !planted.has(each.device.toLowerCase()),
    )
    const ghosts = others.filter((each) =>
      `${each.code} ${each.device}`.startsWith('users-lists-ghost deadbeef'),
    )
    expect(others).toEqual(ghosts)
  })

  it('gives the digest of everything that it would hold back and can read', () => {
    const held = report.troubles.filter((each) => kindOf(each.code).severity === 'held' && each.size > 0)
    expect(held.length).toBeGreaterThan(40)
    expect(held.filter((each) => each.sha256 === undefined)).toEqual([])
  })

  it('refuses a directory of version 1 and one with broken settings, before it counts anything', async () => {
    await expect(scan(path.join(folder, 'v1'))).rejects.toMatchObject({ code: 'STATE_VERSION_UNSUPPORTED' })
    await expect(scan(path.join(folder, 'broken-settings'))).rejects.toThrow('The settings are broken')
  })
})

describe('a scan of what is no state directory', () => {
  let folder: string
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'baton-scan-'))
  })
  afterAll(() => rm(folder, { recursive: true }))

  it('says so of a missing one, of a file and of an empty one', async () => {
    const file = path.join(folder, 'file')
    await writeFile(file, '')
    await mkdir(path.join(folder, 'empty'))
    for (const root of [path.join(folder, 'missing'), file, path.join(folder, 'empty')]) {
      await expect(scan(root)).rejects.toMatchObject({ code: 'STATE_SOURCE_UNREADABLE' })
    }
  })

  it('keeps up with names that hold line breaks, and with bytes that are no text', async () => {
    const root = path.join(folder, 'line\nbreak')
    await mkdir(path.join(root, '1/0'), { recursive: true })
    await writeFile(path.join(root, 'settings'), 'a:1:{s:7:"version";s:1:"2";}')
    await writeFile(path.join(root, '1/0/dev01-devicedata'), 'i:1;')
    await writeFile(path.join(root, '1/0/dev01-a\nb'), 'x')
    await writeFile(Buffer.concat([Buffer.from(`${root}/1/0/dev01-`), Buffer.from([0xff, 0xfe])]), 'y')
    const report = await scan(root)
    expect(report).toMatchObject({ devices: 1, states: 1, byCode: { 'unknown-name-bak': 2 } })
    expect(
      report.troubles.filter((each) => each.code === 'unknown-name-bak').every((each) => each.sha256),
    ).toBe(true)
    await chmod(root, 0o755)
  })
})

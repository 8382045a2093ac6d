import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { cp } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { bucketOf } from '../../src/domain/state/state-key.ts'
import { deviceName, plant } from '../support/phones.ts'
import { projectRoot } from '../support/processes.ts'
import { createStateSite, type StateSite, states } from '../support/state-site.ts'
import { treeChecksum, unpack } from '../support/zpush.ts'

const run = promisify(execFile)
const asRoot = process.getuid?.() === 0 && process.platform === 'linux'

let site: StateSite
let root: string
let from: string
let checksum: string
beforeAll(async () => {
  site = await createStateSite()
  root = path.join(site.folder, 'source')
  plant({ root, devices: 20, statesPerDevice: 4 })
  from = `file:${root}`
  checksum = treeChecksum(root)
})
afterAll(() => site.release())

/** Fails with the code, says it in a line for people, and leaves the source and the rows as they were. */
async function refuse(code: string, ...args: string[]): Promise<string> {
  const before = treeChecksum(root)
  const { code: exit, lines } = await site.run(...args)
  const said = lines.find((line) => line.includes(`[${code}]`)) ?? ''
  expect(`${exit} ${said || lines.join('\n')}`).toContain(`1 `)
  expect(said).toContain(code)
  expect(treeChecksum(root)).toBe(before)
  return said
}

const migrations = async (): Promise<number> =>
  (await site.json<{ migrations: object[] }>('status')).migrations.length

describe('what cannot work', () => {
  it('is refused of a source that is missing, a file, of version 1, or broken', async () => {
    const sample = await unpack('states-dirty')
    const to = await site.zpush()
    try {
      const of = (url: string): string[] => ['migrate', '--from', url, '--to', to, '--yes']
      await refuse('STATE_SOURCE_UNREADABLE', ...of(`file:${site.folder}/missing`))
      await refuse('STATE_SOURCE_UNREADABLE', ...of(`file:${root}/settings`))
      expect(await refuse('STATE_VERSION_UNSUPPORTED', ...of(`file:${sample}/v1`))).toContain('version 1')
      expect(await refuse('STATE_VERSION_UNSUPPORTED', ...of(`file:${sample}/broken-settings`))).toContain(
        'broken',
      )
      expect(await migrations()).toBe(0)
    } finally {
      rmSync(sample, { recursive: true })
    }
  })

  it('is refused of a folder in the source that cannot be read, by a scan and by a migration, counting nothing', async () => {
    const broken = path.join(site.folder, 'broken')
    await cp(root, broken, { recursive: true })
    symlinkSync('z', path.join(broken, 'z'))
    for (const verb of [['scan'], ['migrate', '--yes', '--to', await site.zpush()]]) {
      const said = await refuse('STATE_SOURCE_UNREADABLE', ...verb, '--from', `file:${broken}`)
      expect(said).toMatch(/ELOOP/)
      expect(said).toContain('Nothing was counted')
    }
    rmSync(path.join(broken, 'z'))
    expect(await migrations()).toBe(0)
  })

  it.runIf(asRoot)('is refused of a folder that the user who runs it may not read', async () => {
    const closed = path.join(site.folder, 'closed')
    await cp(root, closed, { recursive: true })
    const leaf = path.join(closed, bucketOf(deviceName(3)))
    chmodSync(leaf, 0)
    chmodSync(site.folder, 0o755)
    // Root without root's right to read everything: another user might not reach the project itself.
    const rights = '-dac_override,-dac_read_search'
    const scan = [path.join(projectRoot, 'src/main.ts'), 'state', 'scan', '--from', `file:${closed}`]
    const child = spawn(
      'setpriv',
      [`--bounding-set=${rights}`, `--inh-caps=${rights}`, process.execPath, ...scan],
      {
        env: { PATH: process.env['PATH'] ?? '', HOME: '/nonexistent' },
        stdio: ['ignore', 'pipe', 'pipe'],
      },
    )
    let output = ''
    child.stderr.on('data', (chunk) => (output += String(chunk)))
    child.stdout.on('data', (chunk) => (output += String(chunk)))
    const [code] = (await once(child, 'close')) as [number]
    expect(output).toMatch(/EACCES.*STATE_SOURCE_UNREADABLE/s)
    expect(output).not.toMatch(/\d+ devices/)
    expect(code).toBe(1)
    chmodSync(leaf, 0o755)
  })

  it('is refused of a target with tables of others, and of one that holds states already', async () => {
    const to = await site.zpush()
    const client = new pg.Client({ connectionString: to.replace('zpush+', '') })
    await client.connect()
    await client.query('CREATE SCHEMA queue')
    await client.query('CREATE TABLE queue.jobs (id integer)')
    const said = await refuse('STATE_TARGET_FOREIGN', 'migrate', '--from', from, '--to', to, '--yes')
    expect(said).toContain('queue.jobs')
    await client.query('DROP SCHEMA queue CASCADE')
    await client.query('CREATE TABLE states (id integer)')
    expect(await refuse('STATE_TARGET_FOREIGN', 'migrate', '--from', from, '--to', to, '--yes')).toContain(
      'lacks',
    )
    await client.end()
    await refuse('STATE_TARGET_FOREIGN', 'migrate', '--from', from, '--to', `file:${site.folder}`, '--yes')
    const full = await site.zpush()
    await site.json('migrate', '--from', from, '--to', full, '--yes')
    const other = path.join(site.folder, 'other')
    plant({ root: other, devices: 1, statesPerDevice: 2 })
    expect(
      await refuse('STATE_TARGET_FOREIGN', 'migrate', '--from', `file:${other}`, '--to', full, '--yes'),
    ).toContain('belongs to the migration')
  })

  it('is refused of a target that is read-only', async () => {
    const to = await site.zpush()
    const said = await refuse(
      'STATE_TARGET_READ_ONLY',
      'migrate',
      '--from',
      from,
      '--yes',
      '--to',
      `${to}?options=-c%20default_transaction_read_only%3Don`,
    )
    expect(said).toContain('read-only')
    await refuse(
      'STATE_TARGET_READ_ONLY',
      'migrate',
      '--from',
      from,
      '--yes',
      '--to',
      'file:/sys/kernel/baton',
    )
  })

  it('asks before it changes anything, and refuses where nobody can be asked', async () => {
    const before = await migrations()
    const { code, lines } = await site.run('migrate', '--from', from, '--to', await site.zpush())
    expect(code).toBe(2)
    expect(lines.join('\n')).toMatch(/Plan\n.*copy from/)
    expect(lines.join('\n')).toContain('add --yes')
    expect(await migrations()).toBe(before)
  })
})

describe('what is odd', () => {
  it('is no obstacle: a path with a line break, there and back', async () => {
    const odd = path.join(site.folder, 'line\nbreak %41')
    await cp(root, odd, { recursive: true })
    const [url, to] = [`file:${odd.replaceAll('%', '%25')}`, await site.zpush()]
    const there = await site.json('migrate', '--from', url, '--to', to, '--yes', '--cut-over')
    expect(there).toMatchObject({ phase: 'watching', counts: { moved: 20 } })
    const back = `${url} back`
    await site.json('migrate', '--from', to, '--to', back, '--yes', '--cut-over')
    expect(states(await site.listing(back))).toEqual(states(await site.listing(from)))
    expect(readdirSync(site.folder)).toContain('line\nbreak %41 back')
  })

  it('is no obstacle: the dirty sample is moved as far as it can be, and the exit code says that something is left', async () => {
    const sample = await unpack('states-dirty')
    try {
      const url = `file:${sample}/dirty`
      const before = treeChecksum(`${sample}/dirty`)
      const to = await site.zpush()
      const args = ['migrate', '--from', url, '--to', to, '--yes']
      const first = await site.run(...args)
      expect(first.code).toBe(1)
      expect(first.lines.join('\n')).toMatch(
        /\d+ states or files were not moved: baton state status \S+ --quarantine/,
      )
      const activity = await site.withStore(to, (store) => store.activity())
      const again = await site.run(...args)
      expect(again.code).toBe(1)
      expect(await site.withStore(to, (store) => store.activity())).toBe(activity)
      expect(treeChecksum(`${sample}/dirty`)).toBe(before)
      const { migrations: all } = await site.json<{ migrations: { from: string; id: string }[] }>('status')
      const id = all.find((each) => each.from === url)?.id ?? ''
      const listed = await site.run('status', id, '--quarantine')
      for (const said of [
        'truncated-devicedata',
        'counter-over-int32',
        'latin1-user-name',
        'wrong-folder',
        'what to do:',
      ]) {
        expect(listed.lines.join('\n')).toContain(said)
      }
    } finally {
      rmSync(sample, { recursive: true })
    }
  })

  it('is no obstacle: one device with 100,000 files, in little memory', async () => {
    const many = path.join(site.folder, 'many')
    plant({ root: many, devices: 3, statesPerDevice: 4 })
    const device = deviceName(1)
    const leaf = path.join(many, bucketOf(device))
    mkdirSync(leaf, { recursive: true })
    for (let index = 0; index < 100_000; index++) {
      const uuid = `00000000-0000-4000-8000-${index.toString(16).padStart(12, '0')}`
      writeFileSync(path.join(leaf, `${device}-${uuid}-1`), `i:${index};`)
    }
    const [url, to] = [`file:${many}`, await site.zpush()]
    const startedAt = performance.now()
    const moved = await site.json('migrate', '--from', url, '--to', to, '--yes', '--no-scan', '--cut-over')
    console.log(`100,000 files of one device: ${Math.round(performance.now() - startedAt)} ms`)
    expect(moved).toMatchObject({
      phase: 'watching',
      counts: { moved: 3, failed: 0 },
      quarantine: { held: 0 },
    })
    expect(moved.counts.states).toBeGreaterThan(100_000)
  })
})

describe.runIf(asRoot)('a disk that is full on the way back', () => {
  it('leaves the source as it is and no half file, and goes on once there is room', async () => {
    const disk = path.join(site.folder, 'disk')
    mkdirSync(disk)
    const mounted = await run('mount', ['-t', 'tmpfs', '-o', 'size=192k', 'tmpfs', disk]).then(
      () => true,
      () => false,
    )
    if (!mounted) return
    try {
      const to = await site.zpush()
      await site.json('migrate', '--from', from, '--to', to, '--yes', '--cut-over')
      const activity = await site.withStore(to, (store) => store.activity())
      const { code, lines } = await site.run('migrate', '--from', to, '--to', `file:${disk}`, '--yes')
      expect(code).toBe(1)
      expect(lines.join('\n')).toMatch(/stands still: The store .* is full.*\[STATE_STORE_FULL\]/)
      expect(await site.withStore(to, (store) => store.activity())).toBe(activity)
      expect(await site.withStore(to, (store) => store.version())).toBe('2')
      const left = (readdirSync(disk, { recursive: true }) as string[]).filter((name) =>
        name.includes('tmp-'),
      )
      expect(left).toEqual([])
      await run('mount', ['-o', 'remount,size=8m', disk])
      const { migrations: all } = await site.json<{ migrations: { to: string; id: string }[] }>('status')
      const id = all.find((each) => each.to === `file:${disk}`)?.id ?? ''
      expect(await site.json('migrate', '--resume', id)).toMatchObject({
        phase: 'ready',
        counts: { moved: 20, failed: 0 },
      })
      expect(states(await site.listing(`file:${disk}`))).toEqual(states(await site.listing(to)))
    } finally {
      await run('umount', [disk])
    }
  })
})

describe('a rehearsal', () => {
  it('is taken back as if it had never been', async () => {
    const place = path.join(site.folder, 'rehearsal')
    for (const to of [await site.zpush(), await site.baton(), `file:${place}`]) {
      const own = path.join(site.folder, `own${Math.random()}`)
      plant({ root: own, devices: 5, statesPerDevice: 2 })
      const { id } = await site.json('migrate', '--from', `file:${own}`, '--to', to, '--yes')
      expect(await site.json<{ removed: number }>('reset', id, '--yes')).toEqual({ removed: 5 })
      // Free for the next one.
      const next = await site.json('migrate', '--from', `file:${own}`, '--to', to, '--yes')
      expect(next.id).not.toBe(id)
      expect(await site.run('reset', next.id, '--yes')).toMatchObject({ code: 0 })
    }
    expect(readdirSync(place)).toEqual([])
    expect(checksum).toMatch(/^\w{64}$/)
  })
})

import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, lstatSync, readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import { gunzipSync } from 'node:zlib'
import { sha256 } from '../../src/core/digest.ts'
import { nextCounter, readUsersOf } from '../../src/domain/state/inspect/phone.ts'
import { scanSerialized } from '../../src/domain/state/php/serialized.ts'
import { readPhp } from '../../src/domain/state/php/value.ts'
import type { StateStore } from '../../src/domain/state/store.ts'
import { projectRoot } from './processes.ts'

const run = promisify(execFile)

/** The whole samples where they are at hand, else the part of them that the project brings along. */
export const samples: string =
  [process.env['ZPUSH_SAMPLES'], path.join(projectRoot, '../shared/zpush')].find(
    (folder) => folder !== undefined && existsSync(path.join(folder, 'states-clean.tar.gz')),
  ) ?? path.join(projectRoot, 'test/fixtures/zpush')

/** Unpacks a sample into a folder of its own; whoever asks removes it. */
export async function unpack(name: 'states-clean' | 'states-dirty'): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'baton-zpush-'))
  await run('tar', ['-xzpf', path.join(samples, `${name}.tar.gz`), '-C', folder])
  return folder
}

export const oracle = (name: 'clean' | 'dirty'): string[] =>
  gunzipSync(readFileSync(path.join(samples, `oracle-${name}.txt.gz`)))
    .toString()
    .trimEnd()
    .split('\n')

const byBytes = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b))

/** What Z-Push's own classes would say of the store, in the words of the oracle. */
export async function listing(store: StateStore): Promise<string[]> {
  const lines = [`version\t${(await store.version()) ?? ''}`]
  for await (const { user, device } of store.links())
    lines.push(`user\t${JSON.stringify(user.toString())}\t${device}\t`)
  for await (const device of store.devices()) lines.push(...(await deviceLines(store, device)))
  return lines.toSorted(byBytes)
}

async function deviceLines(store: StateStore, device: string): Promise<string[]> {
  const lines: string[] = []
  for (const { key } of await store.list(device)) {
    const state = await store.get(device, key)
    if (!state) throw new Error(`${device} lost a state while it was listed`)
    const where = `${key.type || 'def'}\t${key.uuid || '-'}\t${key.counter}`
    lines.push(`state\t${device}\t${where}\t${state.bytes.length}\t${sha256(state.bytes)}`)
  }
  return [...lines, ...(await phoneLines(store, device))]
}

/** What each phone's next request would meet. */
async function phoneLines(store: StateStore, device: string): Promise<string[]> {
  const data = await store.get(device, { type: 'devicedata', uuid: '', counter: 0 })
  const lines: string[] = []
  for (const phone of readUsersOf(data && readPhp(data.bytes)) ?? []) {
    for (const { folder, uuid } of phone.folders) {
      const fd = await store.get(device, { type: 'fd', uuid, counter: 0 })
      const counter = fd && nextCounter(readPhp(fd.bytes))
      const state = counter === undefined ? undefined : await store.get(device, { type: '', uuid, counter })
      const met = state && scanSerialized(state.bytes).kind === 'whole' ? 'ok' : 'missing'
      lines.push(
        `sync\t${device}\t${JSON.stringify(phone.name.toString())}\t${folder}\t{${uuid}}${counter}\t${met}`,
      )
    }
  }
  return lines
}

/** A checksum of everything in a tree: names, kinds, modes, times of change, contents. */
export function treeChecksum(root: string, options: { times?: boolean } = { times: true }): string {
  const hash = createHash('sha256')
  const walk = (place: Buffer): void => {
    const stats = lstatSync(place)
    const times = options.times && !stats.isDirectory() ? stats.mtimeMs : ''
    hash
      .update(place.subarray(root.length))
      .update(`\0${stats.mode & 0o170000} ${stats.size * Number(stats.isFile())} ${times}\n`)
    if (stats.isSymbolicLink()) hash.update(readlinkSync(place))
    else if (stats.isFile()) hash.update(readFileSync(place))
    if (!stats.isDirectory()) return
    for (const name of readdirSync(place, 'buffer').toSorted((a, b) => Buffer.compare(a, b))) {
      walk(Buffer.concat([place, Buffer.from('/'), name]))
    }
  }
  walk(Buffer.from(root))
  return hash.digest('hex')
}

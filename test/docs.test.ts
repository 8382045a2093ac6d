import { glob, readFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { type ErrorKind } from '../src/core/errors.ts'
import { settings } from '../src/platform/config/config.ts'

const root = new URL('../', import.meta.url)

/** The first cells of a Markdown table's rows, without their back-ticks. */
async function rowsOf(file: string): Promise<string[][]> {
  const text = await readFile(new URL(file, root), 'utf8')
  return text
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) =>
      line
        .split(/(?<!\\)\|/)
        .slice(1, -1)
        .map((cell) => cell.trim().replace(/^`|`$/g, '')),
    )
}

async function definedErrors(): Promise<ErrorKind[]> {
  const kinds: ErrorKind[] = []
  for await (const file of glob('{src,jobs}/**/*errors.ts', { cwd: root })) {
    const module: Record<string, unknown> = await import(new URL(file, root).href)
    kinds.push(...Object.values(module).filter(isErrorKind))
  }
  return kinds
}

const isErrorKind = (value: unknown): value is ErrorKind =>
  typeof value === 'function' && 'code' in value && 'template' in value

describe('docs/errors.md', () => {
  it('lists every code once, with the status and retry of the code, and no other', async () => {
    const documented = (await rowsOf('docs/errors.md')).map(
      ([code, status, retry]) => `${code} ${status} ${retry}`,
    )
    const kinds = await definedErrors()
    const defined = kinds.map((kind) => `${kind.code} ${kind.traits.status} ${kind.traits.retry}`)
    expect(kinds.length).toBeGreaterThan(10)
    expect(documented.toSorted()).toEqual(defined.toSorted())
  })
})

describe('docs/configuration.md', () => {
  it('lists every setting with its default, unit and meaning, and no other', async () => {
    const documented = await rowsOf('docs/configuration.md')
    const defined = Object.values(settings).map((each) => [each.name, each.default, each.unit, each.about])
    const lines = (rows: string[][]): string[] => rows.map((row) => row.join(' | ')).toSorted()
    expect(lines(documented)).toEqual(lines(defined))
  })
})

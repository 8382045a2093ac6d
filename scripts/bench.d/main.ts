import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { cpus, totalmem } from 'node:os'
import { type BenchResult, type Measure } from './result.ts'

const parts = ['jobs', 'push', 'bodies', 'state', 'sync', 'gateway']

const words = process.argv.slice(2)
const wanted = words.filter((word) => !word.startsWith('--'))
const unknown = wanted.filter((word) => !parts.includes(word))
if (unknown.length > 0) {
  console.error(`There is no bench called ${unknown.join(', ')}; there are ${parts.join(', ')}.`)
  process.exit(2)
}

const results: BenchResult[] = []
const chosen = wanted.length > 0 ? wanted : parts
for (const part of chosen) {
  const result = chosen.length === 1 ? await measure(part) : measureApart(part)
  results.push(result)
  if (!words.includes('--json')) print(result)
}
console.log(JSON.stringify({ machine: machine(), versions: versions(), results }, null, 2))
process.exit(0)

async function measure(part: string): Promise<BenchResult> {
  const module: { run(): Promise<BenchResult> } = await import(`./${part}.ts`)
  return module.run()
}

/** In a process of its own: what one part leaves in memory would count in the next. */
function measureApart(part: string): BenchResult {
  const stdio: ('ignore' | 'pipe' | 'inherit')[] = ['ignore', 'pipe', 'inherit']
  const output = execFileSync(process.execPath, [import.meta.filename, part, '--json'], { stdio })
  const {
    results: [result],
  } = JSON.parse(output.toString()) as { results: [BenchResult] }
  return result
}

function print(result: BenchResult): void {
  console.log(`\n${result.name}`)
  const lines = result.measures.map(cells)
  const widths = [0, 1, 2, 3, 4, 5].map((column) =>
    Math.max(...lines.map((line) => line[column]?.length ?? 0)),
  )
  for (const line of lines) {
    console.log(
      `  ${line.map((cell, at) => (at === 0 || at === 5 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0))).join('  ')}`,
    )
  }
}

function cells(measure: Measure): string[] {
  return [
    measure.what,
    `${format(measure.ours)} ${measure.unit}`,
    measure.peer === undefined ? '' : `peer ${format(measure.peer)}`,
    measure.ratio === undefined ? '' : `ratio ${measure.ratio.toFixed(2)}`,
    measure.aim === undefined ? '' : `aim ${format(measure.aim)}`,
    measure.note ?? '',
  ]
}

function format(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString('en') : value.toPrecision(3)
}

function machine(): Record<string, unknown> {
  return { cpu: cpus()[0]?.model.trim(), cores: cpus().length, memoryGiB: Math.round(totalmem() / 2 ** 30) }
}

function versions(): Record<string, string> {
  const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'))
  const { bullmq, fastify, ioredis, pg } = manifest.dependencies
  return { node: process.version, bullmq, fastify, ioredis, pg }
}

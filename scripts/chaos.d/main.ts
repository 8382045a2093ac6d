import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { startFaults } from './faults.ts'
import { checkHistory, describeScene, settle } from './history.ts'
import { startLoad } from './load.ts'
import { createRandom } from './random.ts'
import { type EngineName, openSite, type Site, stopUnit } from './site.ts'

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
    engine: { type: 'string' },
    /** How long everything may take to end once the faults are over. */
    'settle-seconds': { type: 'string', default: '90' },
    quiet: { type: 'boolean', default: false },
  },
})
const engines: EngineName[] = values.engine ? [values.engine as EngineName] : ['redis', 'postgres']
const seconds = Number(values.seconds) / engines.length
const seed = Number(values.seed)
let breaches = 0

for (const engine of engines) breaches += (await play(engine)).length
if (breaches > 0) {
  console.log(`chaos: ${breaches} breaches. Again: scripts/chaos --seconds ${values.seconds} --seed ${seed}`)
  console.log('(the seed draws the same faults; what they hit is a matter of time)')
}
process.exit(breaches > 0 ? 1 : 0)

/** What the processes said last: the reason is often among it. */
function showLastWords({ webs, workers }: Site): void {
  for (const { name, process: unit } of [...webs, ...workers]) {
    console.log(`  --- ${name} (pid ${unit.pid})`)
    for (const line of unit.lines.slice(-15)) console.log(`  ${line.slice(0, 600)}`)
  }
}

async function play(engine: EngineName): Promise<string[]> {
  console.log(`chaos: ${engine}, ${seconds} s of faults, seed ${seed}`)
  const random = createRandom(seed)
  const site = await openSite(engine, seed)
  const began = performance.now()
  const say = (line: string): void => {
    if (!values.quiet)
      console.log(`  ${((performance.now() - began) / 1_000).toFixed(1).padStart(5)} s  ${line}`)
  }
  try {
    const load = startLoad(site, random.fork())
    const faults = startFaults(site, random.fork(), say)
    await pause(seconds * 1_000)
    await faults.end()
    await load.end()
    say(
      `${load.accepted.size} jobs accepted, ${load.refused} of ${load.requests} requests refused or unanswered`,
    )
    const settledMs = await settle(site, Number(values['settle-seconds']) * 1_000)
    say(`all ended ${(settledMs / 1_000).toFixed(1)} s after the last fault`)
    const found = await checkHistory(site, load)
    const scene = found.length > 0 ? await describeScene(site) : []
    await Promise.all([...site.webs, ...site.workers].map((unit) => stopUnit(site, unit)))
    found.push(...site.breaches.filter((breach) => !found.includes(breach)))
    for (const breach of found.slice(0, 40)) console.log(`  BREACH: ${breach}`)
    for (const line of scene) console.log(`  ${line}`)
    if (found.length > 0) showLastWords(site)
    const struck = [...faults.struck.values()].reduce((sum, count) => sum + count, 0)
    const runs = [...site.runs().values()].reduce((sum, count) => sum + count, 0)
    console.log(
      `chaos: ${engine} seed ${seed}: ${load.accepted.size} jobs, ${runs} runs, ${struck} faults, ` +
        `${load.refused} of ${load.requests} requests refused, settled in ${(settledMs / 1_000).toFixed(1)} s, ` +
        `${site.neverReady.length} children never ready, ${found.length} breaches`,
    )
    return found
  } finally {
    await site.stop()
  }
}

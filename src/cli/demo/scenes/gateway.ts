import path from 'node:path'
import { messageOf } from '../../../core/errors.ts'
import { freePort } from '../../../platform/free-port.ts'
import { createGatewayClient, type GatewayClient } from '../../compose/gateway-client.ts'
import { waitUntilReady } from '../../web-client.ts'
import { countRows, type Enqueued, type Scene, type Stage, until } from '../stage.ts'

/** How the two revisions of `baton web` differ: the second one shows its metrics to everybody. */
const first = { revision: 'one', environment: { METRICS_OPEN: '0' } }
const second = { revision: 'two', environment: { METRICS_OPEN: '1' } }
const broken = { revision: 'broken', environment: { FLOOD_BURST: 'many' } }

/** Two revisions of web change places under load, and one does not come up. */
export const gateway: Scene = {
  title: 'A new revision behind the gateway, under load',
  async play(stage) {
    const socket = path.join(stage.folder, 'gateway.sock')
    const port = await freePort()
    const address = `http://127.0.0.1:${port}`
    const running = stage.start('gateway', {
      PORT: String(port),
      GATEWAY_SOCKET: socket,
      ...first.environment,
    })
    if (!(await waitUntilReady(address, 30_000))) throw new Error('the gateway did not become ready')
    const load = startLoad(stage, address)
    try {
      await upgrades({ stage, address, control: createGatewayClient(socket) })
    } finally {
      await load.stop()
    }
    await tellOfLoad(stage, load)
    running.signal('SIGTERM')
    const { code } = await running.exited
    stage.promise(`the gateway and both revisions stopped, exit code ${code}`, code === 0)
  },
}

interface Play {
  stage: Stage
  address: string
  control: GatewayClient
}

async function upgrades({ stage, address, control }: Play): Promise<void> {
  const pinned = openBrowser(address)
  const before = await pinned.showsMetrics()
  const targets = async (): Promise<string> =>
    (await control.status()).targets.map(({ id, pid, state }) => `${id} ${pid} ${state}`).join()

  const alone = await targets()
  const refusal = await control.upgrade(broken).then(() => undefined, messageOf)
  stage.say('upgrade to a revision with a wrong setting')
  stage.promise(
    'a revision that did not come up changed nothing, and what it printed was shown',
    refusal?.includes('FLOOD_BURST') === true && (await targets()) === alone,
  )
  const upgradedAt = performance.now()
  const { revision } = await control.upgrade(second)
  stage.say(`upgrade to one that comes up: current after ${Math.round(performance.now() - upgradedAt)} ms`)
  const fresh = openBrowser(address)
  const stayed = !before && !(await pinned.showsMetrics()) && !pinned.moved()
  stage.promise(
    `a session that was there stayed on its revision, new ones began on ${revision}`,
    stayed && (await fresh.showsMetrics()),
  )
}

async function tellOfLoad(stage: Stage, { accepted, answers, faults }: Load): Promise<void> {
  const ran = `SELECT count(*)::int AS count FROM jobs WHERE id = ANY($1::uuid[]) AND outcome = 'completed'`
  await until('the jobs that came through the gateway', 30_000, async () => {
    return (await countRows(stage, ran, [accepted])) === accepted.length
  })
  if (faults[0] !== undefined) stage.say(faults[0])
  stage.promise(
    `none of ${answers()} requests failed meanwhile, and all ${accepted.length} jobs that came with them ran`,
    faults.length === 0 && accepted.length > 0,
  )
}

/** It keeps its cookie. */
function openBrowser(address: string) {
  let cookie = ''
  let moved = false
  const get = async (route: string): Promise<number> => {
    const answer = await fetch(new URL(route, address), {
      // It would be followed without the cookie that came with it.
      redirect: 'manual',
      headers: { accept: 'text/html', ...(cookie ? { cookie } : {}) },
      signal: AbortSignal.timeout(30_000),
    })
    await answer.arrayBuffer()
    moved ||= answer.headers.has('x-session-moved')
    cookie = answer.headers.getSetCookie()[0]?.split(';')[0] ?? cookie
    return answer.status
  }
  return {
    get,
    showsMetrics: async () => (await get('/metrics')) === 200,
    /** Whether any answer said that the session is on another revision than it was. */
    moved: () => moved,
  }
}

interface Load {
  accepted: string[]
  faults: string[]
  answers(): number
  stop(): Promise<void>
}

const producers = 2

/** Programs that enqueue, and a browser that reads pages, without a pause. */
function startLoad(stage: Stage, address: string): Load {
  const accepted: string[] = []
  const faults: string[] = []
  let going = true
  let answers = 0
  const repeat = async (ask: () => Promise<void>): Promise<void> => {
    while (going) {
      await ask().then(
        () => answers++,
        (error: unknown) => faults.push(messageOf(error)),
      )
      await new Promise((resolve) => setTimeout(resolve, 25))
    }
  }
  const client = stage.connect(address)
  const produce = async (): Promise<void> => {
    const { id } = await client.call<Enqueued>('POST', '/v1/jobs', {
      name: 'tally',
      payload: { scene: 'gateway', n: accepted.length },
    })
    accepted.push(id)
  }
  const reader = openBrowser(address)
  const read = async (): Promise<void> => {
    const status = await reader.get('/docs')
    if (status !== 200) throw new Error(`GET /docs answered ${status}`)
    if (reader.moved()) throw new Error('a session was moved to another revision')
  }
  const all = [...Array.from({ length: producers }, () => repeat(produce)), repeat(read)]
  return {
    accepted,
    faults,
    answers: () => answers,
    stop: async () => {
      going = false
      await Promise.all(all)
    },
  }
}

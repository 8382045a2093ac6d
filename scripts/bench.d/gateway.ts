import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { freePort } from '../../src/platform/free-port.ts'
import { load, post } from './load.ts'
import { type BenchResult, type Measure, median } from './result.ts'
import { start } from './servers.ts'

const connections = 32
const roundMs = 3_000
const rounds = 3
const target = fileURLToPath(new URL('./gateway-target.ts', import.meta.url))

const requests = {
  'GET, 100 bytes': () => 'GET / HTTP/1.1\r\nHost: bench\r\n\r\n',
  'POST of 4 KiB': () => post('/', 'none', 'x'.repeat(4_096)),
}

/** Requests through the gateway beside nginx in front of the same target, and beside the target alone. */
export async function run(): Promise<BenchResult> {
  const folder = mkdtempSync(path.join(tmpdir(), 'baton-bench-gateway-'))
  const alone = start('./gateway-target.ts', [], {})
  const direct = Number((await alone.saw(/listening on (\d+)/))[1])
  const port = await freePort()
  const gateway = start('baton', ['gateway', '--', process.execPath, target], {
    PORT: String(port),
    HOST: '127.0.0.1',
    GATEWAY_SOCKET: path.join(folder, 'g.sock'),
    BATON_SECRET: 'bench-secret-0123456789',
  })
  const nginx = await startNginx(folder, direct)
  try {
    await gateway.saw(/takes requests/)
    const measures: Measure[] = []
    for (const [what, request] of Object.entries(requests)) {
      measures.push(await measure(what, request, { direct, ours: port, peer: nginx?.port }))
    }
    return { name: 'gateway', measures }
  } finally {
    nginx?.stop()
    await Promise.all([gateway.stop(), alone.stop()])
    rmSync(folder, { recursive: true, force: true })
  }
}

interface Ports {
  direct: number
  ours: number
  peer: number | undefined
}

async function measure(what: string, request: () => string, ports: Ports): Promise<Measure> {
  const rates = { direct: [] as number[], ours: [] as number[], peer: [] as number[] }
  const p99: number[] = []
  for (let round = 0; round < rounds; round++) {
    for (const name of ['direct', 'peer', 'ours'] as const) {
      const port = ports[name]
      if (port === undefined) continue
      const result = await load({ port, connections, durationMs: roundMs, request })
      const others = Object.keys(result.statuses).filter((status) => status !== '200')
      if (others.length > 0) throw new Error(`answers other than 200: ${JSON.stringify(result.statuses)}`)
      rates[name].push(result.perSecond)
      if (name === 'ours') p99.push(result.p99Ms)
    }
  }
  const [ours, direct] = [median(rates.ours), median(rates.direct)]
  const note = `p99 ${median(p99).toFixed(1)} ms; the target alone ${Math.round(direct).toLocaleString('en')} 1/s`
  const line = { what: `${what}, beside nginx`, ours, unit: '1/s', note }
  if (rates.peer.length === 0) return { ...line, what }
  return { ...line, peer: median(rates.peer), ratio: ours / median(rates.peer) }
}

/** One worker process, as the gateway is one. Undefined where it is not installed. */
async function startNginx(
  folder: string,
  behind: number,
): Promise<{ port: number; stop(): void } | undefined> {
  const port = await freePort()
  const file = path.join(folder, 'nginx.conf')
  writeFileSync(
    file,
    `daemon off; worker_processes 1; pid ${folder}/nginx.pid; error_log /dev/null;
events { worker_connections 1024; }
http { access_log off; client_body_temp_path ${folder}/b; proxy_temp_path ${folder}/p; fastcgi_temp_path ${folder}/f;
  uwsgi_temp_path ${folder}/u; scgi_temp_path ${folder}/s; keepalive_requests 1000000;
  upstream target { server 127.0.0.1:${behind}; keepalive 64; keepalive_requests 1000000; }
  server { listen 127.0.0.1:${port}; location / { proxy_pass http://target; proxy_http_version 1.1; proxy_set_header Connection ""; } } }
`,
  )
  const child = spawn('nginx', ['-c', file], {
    stdio: 'ignore',
    env: { PATH: `${process.env['PATH']}:/usr/sbin` },
  })
  let missing = false
  child.once('error', () => {
    missing = true
  })
  while (!missing && child.exitCode === null) {
    if (await accepts(port)) return { port, stop: () => void child.kill() }
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return undefined
}

const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })

import { type Clock, toIso } from '../../core/clock.ts'
import { messageOf } from '../../core/errors.ts'
import type { Log } from '../../platform/log.ts'
import type { Metrics } from '../../platform/metrics.ts'
import { createEnding } from './ending.ts'
import { createKeeper } from './keeper.ts'
import { createLauncher } from './launcher.ts'
import { followOutput } from './output.ts'
import { createOwnPaths, type OwnPaths } from './own-paths.ts'
import { createPins } from './pin.ts'
import { createPinning } from './pinning.ts'
import { createProblems, type ProblemsOptions } from './problems.ts'
import { createProxy, type ProxyOptions } from './proxy.ts'
import { createStateFile, type RevisionSpec } from './record.ts'
import { createRetirement } from './retirement.ts'
import { createRoster } from './roster.ts'
import { type ClientServerOptions, createClientServer } from './server.ts'
import { type GatewayStatus, type TargetView, urlOf, viewOf } from './status.ts'
import { giveUpStart, stopGateway } from './stop.ts'
import { takeOver } from './takeover.ts'
import { createTarget, type Target } from './target.ts'
import { createUpgrades } from './upgrade.ts'

export interface GatewayOptions {
  host: string
  /** 0 takes any free port. */
  port: number
  secret: string
  pin: 'browsers' | 'all'
  idleMs: number
  limits: { maxAgeMs: number; detachedMax: number; streamCloseMs: number; drainMs: number }
  bootTimeoutMs: number
  /** From the first call of `stop` to its end, ms; a target's own stop gets the same. */
  shutdownMs: number
  readyPath: string
  smokePath: string
  metricsOpen: boolean
  files: GatewayFiles
  /** Of targets, but for what their revision sets. */
  environment: NodeJS.ProcessEnv
  /** Where the output of targets goes. */
  print(text: string): void
  requestId: ProxyOptions['requestId']
  format: ProblemsOptions['format']
  faults: ClientServerOptions['faults']
  pid: number
  clock: Clock
  log: Log
  metrics: Metrics
}

export interface GatewayFiles {
  /** Absolute. */
  socket: string
  state: string
  outputOf(id: string): string
}

export interface Gateway {
  /**
   * Takes over what lives, or starts the revision; then serves.
   *
   * @throws REVISION_UNUSABLE, or why it cannot listen; what was taken over lives on then
   */
  start(first: { spec: RevisionSpec; revision?: string }): Promise<{ url: string }>
  /** Never takes longer than `shutdownMs`. @returns false when something had to be cut or killed */
  stop(): Promise<boolean>
  /** Kills every target, whatever is under way. */
  kill(): void
  status(): GatewayStatus
  /** That of the current target, else of the one that is being started. */
  readonly spec: RevisionSpec | undefined
  /** @throws REVISION_UNUSABLE, REVISION_IN_USE, UPGRADE_UNDER_WAY, GATEWAY_STOPPING */
  upgrade(spec: RevisionSpec, revision?: string): Promise<TargetView>
  /** Puts the end of a detached target off. @throws REVISION_NOT_FOUND, REVISION_NOT_DETACHED */
  extend(revision: string, byMs: number): TargetView
  /** Drains a detached target now. @throws REVISION_NOT_FOUND, REVISION_NOT_DETACHED */
  end(revision: string): TargetView
  readonly own: OwnPaths
}

export function createGateway(options: GatewayOptions): Gateway {
  const { clock, log } = options
  const parts = createParts(options)
  const { roster, retirement, upgrades, server, stopping } = parts
  const startedAt = clock.now()
  let url = ''
  let looking: NodeJS.Timeout | undefined
  let stopped: Promise<boolean> | undefined
  const view = (target: Target): TargetView => viewOf(target, clock)

  const serve: Gateway['start'] = async ({ spec, revision }) => {
    for (const target of roster.targets) {
      parts.keeper.watch(target)
      if (target.state === 'draining') retirement.drain(target, 'it was draining when the gateway was killed')
    }
    if (roster.current)
      log.warn({ revision: roster.current.revision }, 'it stays current; the command line is not followed')
    else await upgrades.run(spec, revision)
    const port = await server.listen(options.host, options.port)
    url = urlOf(options.host, port)
    looking = setInterval(retirement.look, Math.min(1_000, options.idleMs / 4))
    parts.ready.is = true
    return { url }
  }

  return {
    start: (first) => startOn(options, parts, { serve: () => serve(first), stopped: () => stopped }),
    stop: () => {
      clearInterval(looking)
      parts.ready.is = false
      stopping.abort()
      return (stopped ??= stopGateway({ ...parts, clock, log, shutdownMs: options.shutdownMs }))
    },
    kill: () => {
      for (const { process } of roster.targets) process?.signal('SIGKILL')
    },
    status: () => ({
      pid: options.pid,
      url,
      startedAt: toIso(startedAt),
      ...(upgrades.underWay === undefined ? {} : { upgradingTo: upgrades.underWay }),
      targets: roster.targets.map(view),
    }),
    get spec() {
      return (roster.current ?? roster.targets[0])?.spec
    },
    upgrade: async (spec, revision) => view(await upgrades.run(spec, revision)),
    extend: (revision, byMs) => {
      const target = roster.detached(revision)
      retirement.extend(target, byMs)
      return view(target)
    },
    end: (revision) => {
      const target = roster.detached(revision)
      retirement.drain(target, 'it was asked for')
      return view(target)
    },
    own: parts.own,
  }
}

async function startOn(
  options: GatewayOptions,
  parts: ReturnType<typeof createParts>,
  how: { serve: () => Promise<{ url: string }>; stopped: () => Promise<boolean> | undefined },
): Promise<{ url: string }> {
  const { roster, file, stopping } = parts
  takeOver({ roster, file, marker: markerOf(options), clock: options.clock, log: options.log })
  const takenOver = new Set(roster.targets)
  try {
    return await how.serve()
  } catch (error) {
    stopping.abort()
    // A stop that came meanwhile ends everything.
    await (how.stopped() ?? giveUpStart({ ...parts, shutdownMs: options.shutdownMs }, takenOver))
    throw error
  }
}

const markerOf = ({ files }: GatewayOptions): string => `@${files.socket}`

function createParts(options: GatewayOptions) {
  const { clock, log, metrics, files } = options
  const stopping = new AbortController()
  const ready = { is: false }
  const file = createStateFile(files.state, (aside) =>
    log.error({ aside }, 'the state file is broken and set aside'),
  )
  const roster = createRoster({
    clock,
    file,
    onUnwritten: (error) => log.error({ reason: messageOf(error) }, 'the state file cannot be written'),
    open: (record) => {
      const fromEnd = record.process !== undefined
      const output = followOutput({ file: files.outputOf(record.id), fromEnd, print: options.print })
      return createTarget({ record, clock, idleMs: options.idleMs, output })
    },
  })
  const launcher = createLauncher({
    ...options,
    fileOf: ({ id }) => files.outputOf(id),
    markOf: ({ id }) => `${id}${markerOf(options)}`,
  })
  const keeper = createKeeper({ roster, launcher, metrics, clock, log, stopping: stopping.signal })
  const ending = createEnding({ clock, log, ...options.limits })
  const limits = { ...options.limits, killAfterMs: options.shutdownMs }
  const retirement = createRetirement({ roster, ending, clock, log, limits })
  const upgrades = createUpgrades({
    roster,
    launcher,
    keeper,
    retirement,
    metrics,
    log,
    stopping: stopping.signal,
  })
  const clients = createClients(options, {
    roster,
    onStream: retirement.onStream,
    stopping: stopping.signal,
    ready,
  })
  return { stopping, ready, file, roster, keeper, ending, retirement, upgrades, ...clients }
}

interface ClientParts extends Pick<ProxyOptions, 'roster' | 'onStream'> {
  stopping: AbortSignal
  ready: { is: boolean }
}

function createClients(options: GatewayOptions, { roster, onStream, stopping, ready }: ClientParts) {
  const { clock, log, metrics } = options
  const problems = createProblems({
    format: options.format,
    onProblem: (code) => metrics.count('baton_problems_total', { code }),
  })
  const pins = createPins({ secret: options.secret, clock })
  const pinning = createPinning({ pins, who: options.pin, metrics, log })
  const isStopping = (): boolean => stopping.aborted
  const { requestId } = options
  const proxy = createProxy({
    roster,
    pins,
    pinning,
    problems,
    metrics,
    clock,
    requestId,
    onStream,
    isStopping,
  })
  const own = createOwnPaths({ metrics, roster, metricsOpen: options.metricsOpen, isReady: () => ready.is })
  const server = createClientServer({
    onRequest: (request, response) =>
      own.isOwn(request) ? own.answer(request, response, problems) : proxy.request(request, response),
    onUpgrade: proxy.socket,
    onFault: (error) => log.error({ err: error }, 'a request could not be passed on'),
    problems,
    faults: options.faults,
    clock,
  })
  return { server, own }
}

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Clock } from '../../core/clock.ts'
import type { BatonError } from '../../core/errors.ts'
import type { Metrics } from '../../platform/metrics.ts'
import { TARGET_BROKE_OFF, TARGET_TIMED_OUT, TARGET_UNAVAILABLE } from './errors.ts'
import { answerMs, forward, type Outcome } from './forward.ts'
import { answerHeaders, type Origin, originOf, requestHeaders } from './headers.ts'
import type { OpenStream } from './lease.ts'
import type { Pin, Pins } from './pin.ts'
import type { Pinning, Visit } from './pinning.ts'
import type { Problems } from './problems.ts'
import type { Placement, Roster } from './roster.ts'
import type { Target } from './target.ts'
import { forwardSocket, headOf, type SocketOutcome } from './websocket.ts'

/** Finds the target of each request and passes it on. */
export interface Proxy {
  request(request: IncomingMessage, response: ServerResponse): Promise<void>
  socket(request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void>
}

export interface ProxyOptions {
  roster: Roster
  pins: Pins
  pinning: Pinning
  problems: Problems
  metrics: Metrics
  clock: Clock
  requestId(request: IncomingMessage): string
  /** A stream was opened. */
  onStream(target: Target, stream: OpenStream): void
  isStopping(): boolean
}

/** How long a request waits for a target that cannot be reached, ms, and how many may do so at once. */
const holdMs = 3_000
const mostHeld = 1_000
const againMs = 100

/** What is known of a request before it goes anywhere. */
interface Call {
  request: IncomingMessage
  requestId: string
  path: string
  origin: Origin
  pin: Pin | undefined
  cookies: string | undefined
}

export function createProxy(options: ProxyOptions): Proxy {
  const { pins, pinning, problems } = options
  let held = 0

  const read = (request: IncomingMessage): Call => ({
    request,
    requestId: options.requestId(request),
    path: pathOf(request),
    origin: originOf(request),
    pin: pinning.read(request),
    cookies: request.headers.cookie === undefined ? undefined : pins.strip(request.headers.cookie),
  })

  /** Tries until the request has reached somebody, or nobody could be reached for too long. */
  const reach = async <Result extends string>(
    call: Call,
    send: (place: Placement) => Promise<Result | 'unreached'>,
  ): Promise<Result | 'unreached'> => {
    const first = options.roster.place(call.pin)
    const outcome = first ? await send(first) : 'unreached'
    if (outcome !== 'unreached' || held >= mostHeld) return outcome
    held++
    try {
      return await hold(options, call, send)
    } finally {
      held--
    }
  }

  return {
    request: async (request, response) => {
      const call = read(request)
      const outcome = await reach(
        call,
        onceMore((place) => passRequest(options, call, { place, response })),
      )
      options.metrics.count('baton_gateway_requests_total', { outcome })
      const error = errorOf(outcome)
      if (options.isStopping()) response.shouldKeepAlive = false
      if (error && !response.destroyed) problems.answer(response, error, call.requestId)
    },
    socket: async (request, socket, head) => {
      const call = read(request)
      const outcome = await reach(call, (place) => passSocket(options, call, { place, socket, head }))
      options.metrics.count('baton_gateway_requests_total', { outcome })
      const error = errorOf(outcome)
      if (error && !socket.destroyed) {
        const { status, headers, body } = problems.of(error, call.requestId)
        socket.end(`${headOf(status, [...Object.entries(headers).flat(), 'Connection', 'close'])}${body}`)
      }
    },
  }
}

/** Once, so that a request that takes its target down takes down one more at most. */
function onceMore(send: (place: Placement) => Promise<Outcome>): (place: Placement) => Promise<Outcome> {
  let lost = 0
  return async (place) => {
    const outcome = await send(place)
    if (outcome !== 'lost') return outcome
    return lost++ === 0 ? 'unreached' : 'broke-off'
  }
}

async function hold<Result extends string>(
  { roster, clock, isStopping }: ProxyOptions,
  { request, pin }: Call,
  send: (place: Placement) => Promise<Result | 'unreached'>,
): Promise<Result | 'unreached'> {
  const deadline = clock.monotonicMs() + holdMs
  for (;;) {
    const leftMs = deadline - clock.monotonicMs()
    if (leftMs <= 0 || isStopping() || request.socket.destroyed) return 'unreached'
    // Of one that is up and refuses nobody tells when it takes connections again.
    if (roster.place(pin)) await clock.sleep(againMs)
    else await roster.whenUp(leftMs)
    const place = roster.place(pin)
    const outcome = place ? await send(place) : 'unreached'
    if (outcome !== 'unreached') return outcome
  }
}

function errorOf(outcome: Outcome): BatonError | undefined {
  switch (outcome) {
    case 'unreached':
      return TARGET_UNAVAILABLE({ reason: 'it is being started' }, { retryAfterMs: 2_000 })
    case 'lost':
    case 'broke-off':
      return TARGET_BROKE_OFF()
    case 'timed-out':
      return TARGET_TIMED_OUT({ limitMs: answerMs })
    case 'over':
      return undefined
  }
}

async function passRequest(
  options: ProxyOptions,
  call: Call,
  { place, response }: { place: Placement; response: ServerResponse },
): Promise<Outcome> {
  const { target } = place
  const release = enter(target, call.pin)
  const visit: Visit = { request: call.request, place, pin: call.pin, secure: call.origin.secure }
  try {
    return await forward({
      request: call.request,
      response,
      path: call.path,
      headers: requestHeaders(call.request, call),
      to: { port: portOf(target), agent: target.agent },
      answerHeaders: (answer) => {
        const extra = options.pinning.headersFor(visit, answer)
        if (options.isStopping()) extra.push('Connection', 'close')
        return answerHeaders(answer, call.requestId, extra)
      },
      onStream: ({ close }) => {
        // Counted as a stream from here on: a request would be waited for.
        release()
        return openStream(options, target, { call, close })
      },
    })
  } finally {
    release()
  }
}

async function passSocket(
  options: ProxyOptions,
  call: Call,
  { place, socket, head }: { place: Placement; socket: Duplex; head: Buffer },
): Promise<SocketOutcome> {
  const { target } = place
  const release = enter(target, call.pin)
  const visit: Visit = { request: call.request, place, pin: call.pin, secure: call.origin.secure }
  try {
    return await forwardSocket({
      request: call.request,
      socket,
      head,
      path: call.path,
      headers: requestHeaders(call.request, call, true),
      port: portOf(target),
      answerHeaders: (answer) =>
        answerHeaders(answer, call.requestId, options.pinning.headersFor(visit, answer)),
      onStream: ({ close }) => {
        release()
        return openStream(options, target, { call, close })
      },
    })
  } finally {
    release()
  }
}

/** @returns to be called when the request is over; may be repeated */
function enter(target: Target, pin: Pin | undefined): () => void {
  const session = pin?.target === target.id ? pin.session : undefined
  const leave = target.lease.begin()
  if (session === undefined) return leave
  target.lease.seen(session)
  return leave
}

function openStream(
  options: ProxyOptions,
  target: Target,
  { call, close }: { call: Call; close(): void },
): () => void {
  const { pin } = call
  const stream: OpenStream = { pinned: pin?.target === target.id, close }
  const release = target.lease.hold(stream)
  options.onStream(target, stream)
  return () => {
    release()
    // Its session was there all the while.
    if (pin && stream.pinned) target.lease.seen(pin.session)
  }
}

const portOf = (target: Target): number => target.process?.record.port ?? 0

/** Of an absolute URL, which proxies are asked for, what is behind the host. */
function pathOf({ url = '/' }: IncomingMessage): string {
  if (url.startsWith('/') || url === '*') return url
  const parsed = URL.parse(url)
  return parsed ? `${parsed.pathname}${parsed.search}` : '/'
}

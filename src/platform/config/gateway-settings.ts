import { choice, integer, type Setting, text } from './settings.ts'

const day = 86_400_000

/** What there is to set about the gateway. docs/protocols/gateway.md has the words. */
export const gatewaySettings = {
  gatewaySocket: text('GATEWAY_SOCKET', '.baton/gateway.sock', {
    default: '.baton/gateway.sock',
    unit: 'path',
    about:
      'The control socket of `gateway`, at most 100 bytes long. Beside it lie its state and the output of its targets.',
  }),
  gatewayPin: choice('GATEWAY_PIN', ['browsers', 'all'], 'browsers', {
    default: 'browsers',
    unit: 'name',
    about:
      'Who is pinned to a revision: `browsers` (requests that accept text/html or bring any cookie) or `all` that ask.',
  }),
  gatewayIdleMs: integer(
    'GATEWAY_IDLE_MS',
    1_800_000,
    { min: 100, max: day },
    {
      default: '1800000',
      unit: 'ms',
      about: 'How long after its last request a session holds a detached target.',
    },
  ),
  gatewayMaxAgeMs: integer(
    'GATEWAY_MAX_AGE_MS',
    28_800_000,
    { min: 100, max: 30 * day },
    {
      default: '28800000',
      unit: 'ms',
      about: 'How long a target may stay detached, whoever holds it.',
    },
  ),
  gatewayDetachedMax: integer(
    'GATEWAY_DETACHED_MAX',
    3,
    { min: 0, max: 100 },
    {
      default: '3',
      unit: 'targets',
      about: 'Most detached targets; one more and the oldest drains. 0: an upgrade moves every session.',
    },
  ),
  gatewayStreamCloseMs: integer(
    'GATEWAY_STREAM_CLOSE_MS',
    30_000,
    { min: 0, max: day },
    {
      default: '30000',
      unit: 'ms',
      about:
        'Over which time WebSockets and event streams of a draining target are closed, and of a detached one those without a session.',
    },
  ),
  gatewayDrainMs: integer(
    'GATEWAY_DRAIN_MS',
    60_000,
    { min: 0, max: day },
    {
      default: '60000',
      unit: 'ms',
      about: 'How long a draining target may finish requests before it gets its TERM.',
    },
  ),
  gatewayReadyPath: path('GATEWAY_READY_PATH', '/readyz', {
    default: '/readyz',
    unit: 'path',
    about: 'What a new target has to answer with 2xx within BOOT_TIMEOUT_MS.',
  }),
  gatewaySmokePath: path('GATEWAY_SMOKE_PATH', '/livez', {
    default: '/livez',
    unit: 'path',
    about: 'What it then has to answer through the proxy, with less than 400.',
  }),
}

function path(
  name: string,
  fallback: string,
  about: Pick<Setting<string>, 'default' | 'unit' | 'about'>,
): Setting<string> {
  const read = (value: string): string => {
    if (/^\/[!-~]*$/.test(value)) return value
    throw new Error('must be a path that begins with /, such as /readyz')
  }
  return { ...about, name, fallback, read }
}

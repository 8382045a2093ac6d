import type { InspectedDevice, ListedDevice } from '../../../domain/push/device-inspection.ts'
import type { ListedPush, PushList } from '../../../domain/push/inspection.ts'
import { duration, figure, instant, lowerBound } from '../figures.ts'
import { type Html, html } from '../html.ts'
import { deviceLink, link, pushLink } from '../links.ts'
import { stateMark } from '../states.ts'
import { facts, table } from '../table.ts'
import { cellsOf, devicePushColumns } from './pushes-view.ts'

/** As it is configured: `burst` at once after a rest, then one each interval. */
export interface FloodLimit {
  intervalMs: number
  burst: number
}

export interface DevicesScene {
  devices: ListedDevice[]
  more: boolean
  user: string | undefined
  after: string | undefined
  now: number
}

/** Where counting of the open pushes of one device stops. */
const mostOpen = 1_000

export function renderDevices({ devices, more, user, after, now }: DevicesScene): Html {
  const last = devices.at(-1)
  return html`<form class="filter" method="get" action="${link('/devices')}">
  <div><label for="filter-user">User</label><input id="filter-user" name="user" value="${user}" autocomplete="off" spellcheck="false"></div>
  <button>Show</button>
</form>
${table({
  caption: user === undefined ? 'Devices, in the order of their ids' : 'Devices of this user',
  columns: [
    { label: 'Device' },
    { label: 'User' },
    { label: 'Transports' },
    { label: 'Open pushes', figure: true },
    { label: 'Last seen' },
  ],
  rows: devices.map((each) => ({
    cells: [
      deviceLink(each.device),
      each.user ?? '–',
      transportsOf(each),
      lowerBound(each.open, each.open < mostOpen),
      each.seenAt === undefined ? 'never' : instant(each.seenAt, now),
    ],
  })),
  empty: user === undefined ? 'No device is registered.' : 'No device of this user is registered.',
})}
<nav class="pages" aria-label="Pages of the list">
  ${after !== undefined && html`<a href="${link('/devices', { user })}">First page</a>`}
  ${more && last && html`<a href="${link('/devices', { user, after: last.device })}">Next page</a>`}
</nav>`
}

const transportsOf = ({ transports }: ListedDevice): Html =>
  transports.length === 0
    ? html`<span class="help">none</span>`
    : html`${transports.map(({ kind, dead }, index) => html`${index > 0 && ', '}${kind}${dead && html` ${stateMark('dead')}`}`)}`

export interface DeviceScene {
  device: InspectedDevice
  open: ListedPush[]
  closed: PushList
  flood: FloodLimit
  now: number
}

export function renderDevice(scene: DeviceScene): Html {
  const { device, now } = scene
  return html`<div data-live="device">
${facts([
  [
    'User',
    device.user === undefined
      ? '–'
      : html`<a href="${link('/devices', { user: device.user })}">${device.user}</a>`,
  ],
  ['Groups', device.groups.length === 0 ? '–' : device.groups.join(', ')],
  ['Last seen', device.seenAt === undefined ? 'never: it has not listened yet' : instant(device.seenAt, now)],
  ['Registered', instant(device.registeredAt, now)],
  [
    'Waits for a confirmation',
    html`${seconds(device.confirmMs)} <span class="help">twice the ${seconds(device.reconnectMs)} that it lately took to come back, 2 to 60 s</span>`,
  ],
  ['Flood clock', floodOf(scene)],
  ['Shard', figure(device.shard)],
])}
${transportTable(device, now)}
</div>
<div data-live="open">${pushTable(scene.open, {
    caption: 'Open pushes, the newest first',
    empty: 'Nothing is open for it.',
    now,
  })}</div>
<div data-live="closed">${pushTable(scene.closed.pushes, {
    caption: 'Closed lately',
    empty: 'None among the newest 20,000 pushes of all devices.',
    now,
  })}
${scene.closed.pushes.length > 0 && html`<p class="help">Closed pushes are looked for among the newest 20,000 of all devices.</p>`}</div>`
}

const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)} s`

/** GCRA: the clock may be ahead by the whole burst before a cloud push is held. */
function floodOf({ device: { floodMs }, flood: { intervalMs, burst } }: DeviceScene): Html {
  const heldMs = floodMs - (burst - 1) * intervalMs
  if (heldMs > 0) return html`${stateMark('held')} the next cloud push may go in ${duration(heldMs)}`
  const left = Math.min(burst, Math.floor((burst * intervalMs - floodMs) / intervalMs))
  return html`${stateMark('free')} ${figure(left)} of ${figure(burst)} cloud pushes may go at once`
}

const transportTable = ({ transports }: InspectedDevice, now: number): Html =>
  table({
    caption: 'Transports, in order of preference',
    columns: [
      { label: 'Kind' },
      { label: 'State' },
      { label: 'Origin' },
      { label: 'Registered' },
      { label: 'Dead since' },
    ],
    rows: transports.map((each) => ({
      bad: each.deadAt !== undefined,
      cells: [
        each.kind,
        stateMark(each.deadAt === undefined ? 'alive' : 'dead'),
        html`${each.origin ?? '–'}`,
        instant(each.registeredAt, now),
        each.deadAt === undefined
          ? '–'
          : html`${instant(each.deadAt, now)} <span class="help">${each.deadReason}</span>`,
      ],
    })),
    empty: 'It has no transport: it is reached only while it listens.',
  })

const pushTable = (
  pushes: ListedPush[],
  { caption, empty, now }: { caption: string; empty: string; now: number },
): Html =>
  table({
    caption,
    columns: devicePushColumns,
    rows: pushes.map((push) => ({ cells: [pushLink(push.id, push.device), ...cellsOf(push, now)] })),
    empty,
  })

import { createECDH } from 'node:crypto'
import { createInterface } from 'node:readline'
import type { Command } from 'commander'
import { messageOf } from '../../core/errors.ts'
import { isId, newId } from '../../core/ids.ts'
import type { DeviceView } from '../../domain/push/devices.ts'
import { DEVICE_NOT_FOUND, PUSH_NOT_FOUND } from '../../domain/push/errors.ts'
import { mostInBatch, parsePushes } from '../../domain/push/parse-push.ts'
import type { DeliveryLog } from '../../domain/push/push.ts'
import { loadConfig } from '../../platform/config/config.ts'
import { INPUT_INVALID } from '../../platform/queues/errors.ts'
import type { Cli, RegisterVerb } from '../cli.ts'
import { type PushIntake, withPushes } from '../compose/pushes.ts'

export const registerPush: RegisterVerb = (program, cli) => {
  const push = program.command('push').description('Sends pushes, shows what became of them, lists devices.')
  registerSend(push, cli)
  registerShow(push, cli)
  registerDevices(push, cli)
  registerVapid(push, cli)
}

const open = <T>(work: (pushes: PushIntake) => Promise<T>): Promise<T> => withPushes(loadConfig(), work)

interface SendOptions {
  device?: string
  user?: string
  group?: string
  topic?: string
  normal?: boolean
  ttl?: string
  confirm?: string
  escalate?: string
  json?: boolean
}

function registerSend(push: Command, cli: Cli): void {
  push
    .command('send [payload]')
    .description(
      'Sends a push with a JSON payload; without a target, one {"to", "payload", …} a line of standard input.',
    )
    .option('--device <id>', 'to one device')
    .option('--user <user>', 'to all devices of a user')
    .option('--group <group>', 'to all devices of a group')
    .option('--topic <topic>', 'replaces what is open under the same topic')
    .option('--normal', 'only for those who listen: no cloud push')
    .option('--ttl <ms>', 'how long it lives; a day unless said')
    .option('--confirm <ms>', 'until the cloud provider gets it; 0 is at once')
    .option('--escalate <ms>', 'from an unconfirmed cloud push to the next transport')
    .option('--json', 'print JSON')
    .action((payload: string | undefined, options: SendOptions) =>
      open(async (pushes) => {
        const show = (each: { id: string; devices: number }): void =>
          cli.print(options.json ? JSON.stringify(each) : `${each.id}  ${each.devices} devices`)
        const { device, user, group } = options
        if (device === undefined && user === undefined && group === undefined) return sendLines(pushes, show)
        for (const accepted of await accept(pushes, [inputOf(payload, options)])) show(accepted)
      }),
    )
}

/** As the body of POST /v1/pushes has it, so that both are judged by one parser. */
function inputOf(payload: string | undefined, options: SendOptions): Record<string, unknown> {
  const { device, user, group, topic, normal, ttl, confirm, escalate } = options
  const numbers = { ttlMs: ttl, confirmMs: confirm, escalateMs: escalate }
  return {
    to: Object.fromEntries(
      Object.entries({ device, user, group }).filter(([, value]) => value !== undefined),
    ),
    priority: normal ? 'normal' : 'priority',
    ...(topic === undefined ? {} : { topic }),
    ...(payload === undefined ? {} : { payload: parse(payload, 'the payload') }),
    ...Object.fromEntries(
      Object.entries(numbers).flatMap(([name, text]) => (text === undefined ? [] : [[name, Number(text)]])),
    ),
  }
}

const accept = ({ acceptance, now, confirmMs }: PushIntake, inputs: unknown[]) =>
  acceptance.accept(parsePushes(inputs, { newId: () => newId(now()), confirmMs }))

function parse(text: string, what: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw INPUT_INVALID({ summary: `${what} is not JSON: ${messageOf(error)}` })
  }
}

/** Takes in a portion at a time; one that does not fit stops it, and nothing of that portion is sent. */
async function sendLines(
  pushes: PushIntake,
  show: (accepted: { id: string; devices: number }) => void,
): Promise<void> {
  let portion: unknown[] = []
  let number = 0
  const flush = async (): Promise<void> => {
    if (portion.length === 0) return
    const first = number - portion.length + 1
    try {
      for (const accepted of await accept(pushes, portion)) show(accepted)
    } catch (error) {
      const summary = `lines ${first} to ${number}: ${messageOf(error)} The lines before them were sent`
      throw INPUT_INVALID({ summary }, { cause: error })
    }
    portion = []
  }
  for await (const text of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    if (text.trim() === '') continue
    number++
    portion.push(parse(text, `line ${number}`))
    if (portion.length >= mostInBatch / 2) await flush()
  }
  await flush()
}

function registerShow(push: Command, cli: Cli): void {
  push
    .command('show <id>')
    .description('Shows the delivery log of a push.')
    .option('--json', 'print JSON')
    .action((id: string, options: { json?: boolean }) =>
      open(async ({ pushes }) => {
        const log = isId(id) ? await pushes.show(id) : undefined
        if (!log) throw PUSH_NOT_FOUND({ id })
        if (options.json) return cli.print(JSON.stringify(log, null, 2))
        for (const line of linesOf(log)) cli.print(line)
      }),
    )
}

function linesOf(log: DeliveryLog): string[] {
  const lines = log.devices.flatMap(({ device, state, milestones }) => [
    `${device}  ${state}`,
    ...milestones.map(({ name, at, ...details }) => {
      const rest = Object.entries(details).map(([key, value]) => `${key}=${String(value)}`)
      return ['  ', at, name.padEnd(12), ...rest].join(' ').trimEnd()
    }),
  ])
  return log.count > log.devices.length
    ? [...lines, `and ${log.count - log.devices.length} more devices`]
    : lines
}

function registerDevices(push: Command, cli: Cli): void {
  push
    .command('devices [id]')
    .description('Lists devices in the order of their ids, or shows one.')
    .option('--user <user>', 'only those of a user')
    .option('--group <group>', 'only those of a group')
    .option('--after <id>', 'where the last page ended')
    .option('--limit <n>', 'how many at most', '50')
    .option('--json', 'print JSON')
    .action(
      (
        id: string | undefined,
        options: { user?: string; group?: string; after?: string; limit: string; json?: boolean },
      ) =>
        open(async ({ devices }) => {
          const { json, limit, ...filter } = options
          if (id !== undefined) {
            const device = await devices.get(id)
            if (!device) throw DEVICE_NOT_FOUND({ device: id })
            return cli.print(JSON.stringify(device, null, 2))
          }
          const found = await devices.list({ ...filter, limit: Math.max(1, Math.trunc(Number(limit)) || 50) })
          if (json) return cli.print(JSON.stringify({ devices: found }, null, 2))
          for (const device of found) cli.print(lineOf(device))
        }),
    )
}

function lineOf(device: DeviceView): string {
  const transports = device.transports.map((each) => (each.deadAt ? `${each.kind} (dead)` : each.kind))
  return [
    device.device,
    device.user ?? '-',
    transports.join(', ') || 'no transport',
    `${device.open} open`,
    device.seenAt ?? 'never seen',
  ].join('  ')
}

function registerVapid(push: Command, cli: Cli): void {
  push
    .command('vapid')
    .description('Makes a pair of keys for Web Push, as settings. Browsers subscribe with the public one.')
    .action(() => {
      const ecdh = createECDH('prime256v1')
      ecdh.generateKeys()
      cli.print(`VAPID_PUBLIC_KEY=${ecdh.getPublicKey('base64url')}`)
      cli.print(`VAPID_PRIVATE_KEY=${padded(ecdh.getPrivateKey()).toString('base64url')}`)
    })
}

/** The scalar without its leading zeros, as it comes, is no key of 32 bytes one time in 256. */
const padded = (key: Buffer): Buffer => Buffer.concat([Buffer.alloc(32 - key.length), key])

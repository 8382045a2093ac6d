import { expect, it } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import type { SendResult } from '../../../src/domain/push/provider.ts'
import { createGuardedProvider } from '../../../src/domain/push/provider-guard.ts'
import { createStubProvider, type StubAnswer } from '../../../src/domain/push/providers/stub.ts'
import type { StoredTransport } from '../../../src/domain/push/transport.ts'
import { sampleMessage } from '../../contracts/push-provider.ts'

const to = (address: string): StoredTransport => ({
  kind: 'stub',
  address,
  options: {},
  position: 0,
  registeredAt: '',
})

/** A guarded provider whose scopes are its addresses, on a clock that only the test turns. */
function guarded(answer: StubAnswer) {
  let now = 1_000
  const stub = { ...createStubProvider(answer), scopeOf: (transport: StoredTransport) => transport.address }
  const clock = { ...createSystemClock(), monotonicMs: () => now }
  const provider = createGuardedProvider(stub, { clock, maxWhenSlow: 4, failures: 3, openMs: 1_000 })
  const send = (address: string): Promise<SendResult> => provider.send(to(address), sampleMessage())
  return { send, stub, pass: (ms: number) => void (now += ms) }
}

it('asks a provider that is down less and less, and lets it back in by one probe', async () => {
  let down = true
  const { send, stub, pass } = guarded(() =>
    down ? { kind: 'retry', reason: '503' } : { kind: 'accepted', id: 'x' },
  )
  for (let turn = 0; turn < 10; turn += 1) await send('a')
  expect(stub.sent).toHaveLength(3)
  expect(await send('a')).toMatchObject({ kind: 'unsent' })
  pass(1_001)
  await send('a')
  await send('a')
  expect(stub.sent).toHaveLength(4)
  pass(1_001)
  await send('a')
  expect(stub.sent).toHaveLength(4)
  pass(1_000)
  down = false
  expect(await send('a')).toMatchObject({ kind: 'accepted' })
  expect(await send('a')).toMatchObject({ kind: 'accepted' })
})

it('keeps the trouble of one origin from the others', async () => {
  const { send } = guarded(({ address }) =>
    address === 'down' ? { kind: 'retry', reason: '503' } : { kind: 'accepted', id: 'x' },
  )
  for (let turn = 0; turn < 10; turn += 1) await send('down')
  expect(await send('down')).toMatchObject({ kind: 'unsent' })
  expect(await send('up')).toMatchObject({ kind: 'accepted' })
})

it('does not take a limit of one device, or an address that is gone, for a fault of the provider', async () => {
  const { send, stub } = guarded(() => ({ kind: 'device-limited', reason: '429' }))
  for (let turn = 0; turn < 10; turn += 1) await send('a')
  expect(stub.sent).toHaveLength(10)
})

it('lets a provider that hangs hold only a few sends, and one that answers many', async () => {
  const waiting: ((result: SendResult) => void)[] = []
  const { send, pass } = guarded(() => new Promise((resolve) => void waiting.push(resolve)))
  const first = Array.from({ length: 10 }, () => send('a'))
  expect(waiting).toHaveLength(10)
  pass(1_500)
  expect(await send('a')).toMatchObject({ kind: 'unsent', reason: 'the provider is slow' })
  for (const resolve of waiting.splice(0)) resolve({ kind: 'accepted', id: 'x' })
  await Promise.all(first)
  void send('a')
  expect(waiting).toHaveLength(1)
  waiting[0]?.({ kind: 'accepted', id: 'x' })
})

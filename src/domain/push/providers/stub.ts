import type { CloudMessage, Provider, SendResult } from '../provider.ts'
import type { StoredTransport } from '../transport.ts'

export interface StubProvider extends Provider {
  /** What was sent, in order. */
  readonly sent: { transport: StoredTransport; message: CloudMessage; result: SendResult }[]
}

export type StubAnswer = (
  transport: StoredTransport,
  message: CloudMessage,
) => SendResult | Promise<SendResult>

/** Sends nothing and keeps what it was given: for tests, and for a machine without a network. */
export function createStubProvider(
  answer: StubAnswer = (_transport, message) => ({ kind: 'accepted', id: `stub-${message.id}` }),
): StubProvider {
  const sent: StubProvider['sent'] = []
  return {
    kind: 'stub',
    maxBytes: Number.POSITIVE_INFINITY,
    sent,
    scopeOf: () => 'stub',
    send: async (transport, message) => {
      const result = await answer(transport, message)
      sent.push({ transport, message, result })
      return result
    },
    close: async () => undefined,
  }
}

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { CloudMessage, Provider } from '../../src/domain/push/provider.ts'
import type { StoredTransport } from '../../src/domain/push/transport.ts'
import { type PushService, type Received, type Script, startPushService } from '../support/push-service.ts'

/** How a provider's service says what every provider has to tell apart. */
export interface ProviderLanguage {
  accepted: Script
  /** The address does not exist any more. */
  gone: Script
  /** This device gets too many, with Retry-After where the service has such a thing. */
  deviceLimited(retryAfter: string): Script
  /** The service is in trouble, with Retry-After. */
  trouble(retryAfter: string): Script
  /** What it will never take. */
  refused: Script
  /** By what the receiver can tell that a request is the same as before. */
  identityOf(received: Received): string
}

export interface ProviderCase {
  create(origin: string): { provider: Provider; transport: StoredTransport; close(): Promise<void> }
  language: ProviderLanguage
  /** Longest that a send may take in the suite, ms: the deadline that `create` gives it. */
  timeoutMs: number
}

export const sampleMessage = (more: Partial<CloudMessage> = {}): CloudMessage => ({
  id: '0196d2f0-5c4e-7a3b-8c1d-2e3f4a5b6c7d',
  device: 'phone',
  collapse: 't:news',
  count: 1,
  ttlMs: 60_000,
  push: {
    id: '0196d2f0-0000-7000-8000-000000000001',
    topic: 'news',
    payload: '{"text":"hello"}',
    acceptedAt: '2026-01-02T03:04:05.678Z',
  },
  ...more,
})

/** What is promised by every provider, whatever its service. Run it with `describe` around. */
export function exercisePushProvider(name: string, { create, language, timeoutMs }: ProviderCase): void {
  describe(`the provider ${name}`, () => {
    let service: PushService
    let made: ReturnType<ProviderCase['create']>
    beforeAll(async () => {
      service = await startPushService()
      made = create(service.origin)
    })
    afterAll(async () => {
      await made.provider.close()
      await made.close()
      await service.close()
    })
    beforeEach(() => {
      service.answer(language.accepted)
      service.received.length = 0
    })
    const send = (message = sampleMessage()) => made.provider.send(made.transport, message)

    it('says what was accepted', async () => {
      expect(await send()).toMatchObject({ kind: 'accepted' })
      expect(service.received).toHaveLength(1)
    })

    it('bears the same identity when the same message is sent again, and another for another', async () => {
      await send()
      await send()
      await send(sampleMessage({ id: '0196d2f0-5c4e-7a3b-8c1d-999999999999', collapse: 't:other' }))
      const [first, second, third] = service.received.map(language.identityOf)
      expect(first).toBe(second)
      expect(third).not.toBe(first)
    })

    it('uses one connection for many, also at once', async () => {
      const before = service.connections
      await send()
      await Promise.all(Array.from({ length: 50 }, () => send()))
      expect(service.connections - before).toBeLessThanOrEqual(1)
    })

    it('tells an address that is gone', async () => {
      service.answer(language.gone)
      expect(await send()).toMatchObject({ kind: 'gone', reason: expect.any(String) })
    })

    it('takes the limit of one device for that of one device, and heeds both forms of Retry-After', async () => {
      service.answer(language.deviceLimited('7'))
      expect(await send()).toMatchObject({ kind: 'device-limited', afterMs: 7_000 })
      service.answer(language.deviceLimited(new Date(Date.now() + 60_000).toUTCString()))
      const result = await send()
      expect(result.kind).toBe('device-limited')
      expect('afterMs' in result && result.afterMs).toBeGreaterThan(55_000)
      expect('afterMs' in result && result.afterMs).toBeLessThanOrEqual(61_000)
    })

    it('leaves a service in trouble alone for as long as it asks, and never sends twice by itself', async () => {
      service.answer(language.trouble('11'))
      expect(await send()).toMatchObject({ kind: 'retry', afterMs: 11_000 })
      service.answer({ status: 500 })
      expect(await send()).toMatchObject({ kind: 'retry' })
      expect(service.received).toHaveLength(2)
    })

    it('says of what is refused that it never will be taken', async () => {
      service.answer(language.refused)
      expect(await send()).toMatchObject({ kind: 'rejected', reason: expect.any(String) })
    })

    it('does not wait for ever, and does not know then whether it arrived', async () => {
      service.answer('hang')
      const startedAt = performance.now()
      expect(await send()).toMatchObject({ kind: 'retry' })
      expect(performance.now() - startedAt).toBeLessThan(timeoutMs + 2_000)
      service.answer(language.accepted)
      expect(await send()).toMatchObject({ kind: 'accepted' })
    })

    it('outlives a reset', async () => {
      service.answer('reset')
      expect((await send()).kind).toMatch(/^(retry|unsent)$/)
      service.answer(language.accepted)
      expect(await send()).toMatchObject({ kind: 'accepted' })
    })

    it('goes over to a new connection when it is told to go away, without losing one', async () => {
      await send()
      service.goAway()
      const results = []
      for (let turn = 0; turn < 20; turn += 1) results.push((await send()).kind)
      expect(results.filter((kind) => kind !== 'accepted' && kind !== 'unsent')).toEqual([])
      expect(results.at(-1)).toBe('accepted')
    })

    it('knows that nothing left the house when nobody is there', async () => {
      const nobody = await startPushService()
      await nobody.close()
      const lost = create(nobody.origin)
      expect(await lost.provider.send(lost.transport, sampleMessage())).toMatchObject({ kind: 'unsent' })
      await lost.provider.close()
      await lost.close()
    })

    it('names what fails together', () => {
      expect(made.provider.scopeOf(made.transport)).not.toBe('')
    })
  })
}

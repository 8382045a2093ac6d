// The peer of a cloud push: the web-push package, fifty at once, on connections that are kept. Prints its rate.
import { readFileSync } from 'node:fs'
import { Agent } from 'node:https'
import { createRequire } from 'node:module'
import { payload, subscriptions, vapidPair } from './push-crypto.ts'

interface WebPush {
  sendNotification(subscription: unknown, payload: string, options: unknown): Promise<unknown>
}

const [origin = '', count = '1000'] = process.argv.slice(2)
const webpush = createRequire(import.meta.url)('web-push') as WebPush
const ca = readFileSync(new URL('../../test/fixtures/tls/localhost.cert.pem', import.meta.url))
const agent = new Agent({ keepAlive: true, maxSockets: 50, ca })
const options = { TTL: 60, vapidDetails: vapidPair(), agent }
const all = subscriptions(Number(count), origin)

const send = async (from: number, step: number): Promise<void> => {
  for (let n = from; n < all.length; n += step) await webpush.sendNotification(all[n], payload, options)
}
const startedAt = performance.now()
await Promise.all(Array.from({ length: 50 }, (_none, index) => send(index, 50)))
console.log(`sent ${((all.length * 1_000) / (performance.now() - startedAt)).toFixed(1)} a second`)
process.exit(0)

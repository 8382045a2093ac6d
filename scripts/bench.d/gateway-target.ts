// What stands behind the gateway, and behind its peer. Prints its port.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

const text = JSON.stringify({ hello: 'x'.repeat(100) })
const server = createServer((request, response) => {
  request.resume()
  request.on('end', () => {
    response.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': text.length })
    response.end(text)
  })
})
server.listen(Number(process.env['PORT'] ?? 0), '127.0.0.1', () =>
  console.log(`listening on ${(server.address() as AddressInfo).port}`),
)
process.on('SIGTERM', () => process.exit(0))

// A push service that accepts everything, over HTTP/2 and HTTP/1.1, and says how much it got. Prints its port.
import { readFileSync } from 'node:fs'
import { createSecureServer } from 'node:http2'

const fixture = (name: string): Buffer =>
  readFileSync(new URL(`../../test/fixtures/tls/localhost.${name}.pem`, import.meta.url))
let count = 0
const server = createSecureServer({ key: fixture('key'), cert: fixture('cert'), allowHTTP1: true })
server.on('session', (session) => session.on('error', () => undefined))
server.on('request', (request, response) => {
  if (request.url === '/count') return void response.end(String(count))
  request.on('error', () => undefined)
  request.resume()
  request.on('end', () => {
    count++
    response.writeHead(201, { location: `/message/${count}` })
    response.end()
  })
})
server.listen(0, '127.0.0.1', () => {
  const address = server.address()
  console.log(`listening on ${typeof address === 'object' ? address?.port : ''}`)
})

import { readFile } from 'node:fs/promises'
import { STATUS_CODES } from 'node:http'
import type { FastifyInstance } from 'fastify'
import { type ApiDocument, renderDocuments, stylesheet } from '../documents-page.ts'

const errorsTable = new URL('../../../../docs/errors.md', import.meta.url)

/** No script, no foreign origin, no frame: the page is text. */
const policy =
  "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

/** `/openapi.json` and `/docs`, both made from the schemas of the routes. */
export function addDocuments(server: FastifyInstance): void {
  const hidden = { schema: { hide: true } }
  let page: Promise<string> | undefined
  const document = (): ApiDocument => withMeanings(server.swagger() as unknown as ApiDocument)
  const render = async (): Promise<string> =>
    renderDocuments(document(), await readFile(errorsTable, 'utf8').catch(() => ''))

  server.get('/openapi.json', hidden, (_request, reply) => {
    reply.header('cache-control', 'public, max-age=300').send(document())
  })
  server.get('/docs', hidden, async (_request, reply) => {
    page ??= render()
    return reply
      .headers({
        'content-security-policy': policy,
        'x-content-type-options': 'nosniff',
        'referrer-policy': 'no-referrer',
        'cache-control': 'public, max-age=300',
      })
      .type('text/html; charset=utf-8')
      .send(await page)
  })
  server.get('/docs/style.css', hidden, (_request, reply) => {
    reply
      .headers({ 'x-content-type-options': 'nosniff', 'cache-control': 'public, max-age=300' })
      .type('text/css; charset=utf-8')
      .send(stylesheet)
  })
}

/** Where a route says nothing of an answer, the words of its status say more than the generator's. */
function withMeanings(document: ApiDocument): ApiDocument {
  for (const operation of Object.values(document.paths).flatMap((methods) => Object.values(methods)))
    for (const [status, answer] of Object.entries(operation.responses ?? {}))
      if (answer.description === 'Default Response') answer.description = STATUS_CODES[status] ?? 'An answer'
  return document
}

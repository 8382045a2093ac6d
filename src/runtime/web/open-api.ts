import { Type } from 'typebox'

/** What /openapi.json says besides the routes. */
export const openApi = {
  openapi: '3.1.0',
  info: {
    title: 'Baton',
    version: '1',
    description:
      'Background jobs and push delivery. Errors are `application/problem+json` with a stable `code`. ' +
      '`X-Request-Id` and `traceparent` are honoured and carried into jobs.',
  },
  components: {
    securitySchemes: {
      key: {
        type: 'http' as const,
        scheme: 'bearer',
        description: 'An API key; `baton keys create` makes one.',
      },
    },
  },
  tags: [
    { name: 'jobs', description: 'Work to be done in the background' },
    { name: 'push', description: 'Devices, pushes to them, and listening for them' },
    { name: 'bodies', description: 'Large data, stored under its sha256' },
    { name: 'state', description: 'Sync states of phones, and moving them between stores' },
    { name: 'sync', description: 'Replicas of this site, and what sites ask of each other' },
    { name: 'process', description: 'What platforms and monitors ask' },
  ],
}

export const Problem = Type.Object(
  {
    type: Type.String(),
    title: Type.String(),
    status: Type.Integer(),
    code: Type.String({ description: 'Stable; docs/errors.md lists them all' }),
    detail: Type.String({ description: 'For people' }),
    errors: Type.Optional(
      Type.Array(Type.Object({ path: Type.String({ description: 'JSON pointer' }), message: Type.String() })),
    ),
    requestId: Type.Optional(Type.String()),
  },
  { description: 'RFC 9457' },
)

const problemContent = (description: string) => ({
  description,
  content: { 'application/problem+json': { schema: Problem } },
})

/** The answers that every route with a key may give, and those of its own. */
export const problems = (own: Record<number, string> = {}) =>
  Object.fromEntries(
    Object.entries({
      401: 'No key, or one that is unknown or revoked',
      403: 'The key has another role',
      503: 'Not now; see Retry-After',
      ...own,
    }).map(([status, description]) => [status, problemContent(description)]),
  )

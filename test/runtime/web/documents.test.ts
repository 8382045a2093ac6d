import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Harness, operator, producer, startHarness, viewer } from './web-harness.ts'

let api: Harness
beforeAll(async () => {
  api = await startHarness({
    plugins: [
      async (server) => {
        server.get('/plugged', { config: { roles: ['viewer'] } }, (request, reply) => {
          reply.send({ name: request.principal?.name })
        })
      },
    ],
  })
})
afterAll(() => api.close())

interface Document {
  openapi: string
  paths: Record<
    string,
    Record<
      string,
      {
        requestBody?: unknown
        parameters?: { name: string; in: string; required?: boolean }[]
        responses: Record<string, { description?: string; content?: Record<string, unknown> }>
        security?: unknown
      }
    >
  >
}

describe('the documents', () => {
  it('describe every route by OpenAPI 3.1', async () => {
    const response = await api.request('/openapi.json')
    const document = (await response.json()) as Document
    expect(document.openapi).toMatch(/^3\.1\./)
    const routes = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.keys(methods).map((method) => `${method} ${path}`),
    )
    expect(routes).toEqual(
      expect.arrayContaining([
        'post /v1/jobs',
        'get /v1/jobs',
        'get /v1/jobs/{id}',
        'delete /v1/jobs/{id}',
        'post /v1/jobs/{id}/retry',
        'get /v1/jobs/{id}/events',
        'get /livez',
        'get /readyz',
        'get /metrics',
      ]),
    )
    const post = document.paths['/v1/jobs']?.['post']
    expect(JSON.stringify(post?.requestBody)).toContain('dedupeKey')
    expect(Object.keys(post?.responses ?? {})).toEqual(
      expect.arrayContaining(['202', '400', '401', '403', '404', '409', '413', '415', '503']),
    )
    expect(JSON.stringify(document)).not.toContain('~kind')
  })

  it('say of every answer what it means, and declare every parameter of a path', async () => {
    const document = (await (await api.request('/openapi.json')).json()) as Document
    for (const [path, methods] of Object.entries(document.paths)) {
      for (const [method, { responses, parameters = [] }] of Object.entries(methods)) {
        const declared = parameters.filter((each) => each.in === 'path' && each.required)
        const named = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name)
        expect([method, path, declared.map(({ name }) => name)]).toEqual([method, path, named])
        for (const [status, { description }] of Object.entries(responses)) {
          expect([method, path, status, description]).not.toContain('Default Response')
        }
      }
    }
    const metrics = document.paths['/metrics']?.['get']?.responses['200']
    expect(Object.keys(metrics?.content ?? {})).toEqual(['text/plain'])
  })

  it('can be read on a page that needs no script and nothing from elsewhere', async () => {
    const response = await api.request('/docs')
    const page = await response.text()
    expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8')
    expect(response.headers.get('content-security-policy')).toContain("default-src 'none'")
    expect(page).not.toMatch(/<script|<style| on\w+=|style=|https?:\/\//)
    expect(page).toContain('POST /v1/jobs')
    // Where the `type` of a problem leads.
    expect(page).toContain('id="INPUT_INVALID"')
    expect((await api.request('/docs/style.css')).headers.get('content-type')).toContain('text/css')
  })
})

describe('plugins', () => {
  it('find the roles and the errors of the server', async () => {
    expect((await api.request('/plugged')).headers.get('content-type')).toContain('problem+json')
    expect((await api.request('/plugged', { key: producer })).status).toBe(403)
    expect(await (await api.request('/plugged', { key: viewer })).json()).toEqual({
      name: 'BATON_API_KEYS viewer',
    })
  })
})

describe('metrics', () => {
  it('count answers, errors and jobs, for those who may read', async () => {
    await api.post({ name: 'mail', payload: { to: 'a' } })
    await api.post('{')
    expect((await api.request('/metrics')).status).toBe(401)
    expect((await api.request('/metrics', { key: producer })).status).toBe(403)
    const response = await api.request('/metrics', { key: operator })
    const text = await response.text()
    expect(response.headers.get('content-type')).toContain('text/plain')
    expect(text).toMatch(
      /baton_http_request_duration_seconds_count\{.*route="\/v1\/jobs",status="202".*\} [1-9]/,
    )
    expect(text).toMatch(/baton_problems_total\{code="BODY_MALFORMED"\} [1-9]/)
    expect(text).toMatch(/baton_jobs_accepted_total\{job="mail"\} [1-9]/)
    expect(text).toMatch(/baton_jobs\{state="waiting"\} [1-9]/)
  })
})

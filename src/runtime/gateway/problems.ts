import type { ServerResponse } from 'node:http'
import type { BatonError } from '../../core/errors.ts'

/** An error as a client is told of it. */
export interface Problem {
  status: number
  headers: Record<string, string>
  body: string
}

export interface Problems {
  of(error: BatonError, requestId?: string): Problem
  answer(response: ServerResponse, error: BatonError, requestId: string): void
}

export interface ProblemsOptions {
  /** In which form it is told: that of all of Baton. */
  format: {
    type: string
    body(error: BatonError, requestId?: string): string
    headers(error: BatonError): Record<string, string>
  }
  onProblem(code: string): void
}

export function createProblems({ format, onProblem }: ProblemsOptions): Problems {
  const of = (error: BatonError, requestId?: string): Problem => {
    onProblem(error.code)
    const body = format.body(error, requestId)
    const headers = {
      ...format.headers(error),
      'content-type': format.type,
      'content-length': String(Buffer.byteLength(body)),
      ...(requestId === undefined ? {} : { 'x-request-id': requestId }),
    }
    return { status: error.traits.status, headers, body }
  }
  return {
    of,
    answer: (response, error, requestId) => {
      const { status, headers, body } = of(error, requestId)
      // The rest of a body that nobody takes would have to be read before the next request.
      if (!response.req.complete) response.setHeader('connection', 'close')
      response.writeHead(status, headers).end(body)
    },
  }
}

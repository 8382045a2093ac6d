/** Speaks to a web tier over HTTP, for `dev` and `demo`. */
export interface WebClient {
  readonly address: string
  /** @throws an Error with the problem's detail when the answer is not 2xx */
  call<T>(method: string, path: string, body?: unknown): Promise<T>
  /** What a path answers, as it is. */
  bytes(path: string): Promise<Uint8Array>
  put(path: string, bytes: Uint8Array): Promise<void>
  putBody(bytes: Uint8Array): Promise<{ id: string; size: number; copies: number }>
}

interface Init {
  body?: string | Uint8Array<ArrayBuffer>
  headers?: Record<string, string>
}

const octets = { 'content-type': 'application/octet-stream' }

/** @param ended whoever waits for an answer then is told so, and nothing more is asked */
export function createWebClient(address: string, key: string, ended?: AbortSignal): WebClient {
  const ask = async (method: string, path: string, init: Init): Promise<Response> => {
    const response = await fetch(new URL(path, address), {
      ...init,
      method,
      headers: { authorization: `Bearer ${key}`, ...init.headers },
      signal: AbortSignal.any([AbortSignal.timeout(30_000), ...(ended ? [ended] : [])]),
    })
    if (response.ok) return response
    const text = await response.text()
    throw new Error(`${method} ${path} answered ${response.status}: ${text.slice(0, 500)}`)
  }
  const send = async <T>(method: string, path: string, init: Init): Promise<T> => {
    const text = await (await ask(method, path, init)).text()
    return (text === '' ? undefined : JSON.parse(text)) as T
  }
  return {
    address,
    call: (method, path, body) =>
      send(
        method,
        path,
        body === undefined
          ? {}
          : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } },
      ),
    bytes: async (path) => new Uint8Array(await (await ask('GET', path, {})).arrayBuffer()),
    put: (path, bytes) => send('PUT', path, { body: bytes as Uint8Array<ArrayBuffer>, headers: octets }),
    putBody: (bytes) =>
      send('PUT', '/v1/bodies', { body: bytes as Uint8Array<ArrayBuffer>, headers: octets }),
  }
}

/** Polls /readyz. @returns false when it was not ready within `limitMs` */
export async function waitUntilReady(address: string, limitMs: number): Promise<boolean> {
  const deadline = performance.now() + limitMs
  while (performance.now() < deadline) {
    const ready = await fetch(new URL('/readyz', address), { signal: AbortSignal.timeout(2_000) })
      .then((response) => response.ok)
      .catch(() => false)
    if (ready) return true
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  return false
}

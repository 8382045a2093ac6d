/** Speaks to a web tier over HTTP, for `dev` and `demo`. */
export interface WebClient {
  readonly address: string
  /** @throws an Error with the problem's detail when the answer is not 2xx */
  call<T>(method: string, path: string, body?: unknown): Promise<T>
  putBody(bytes: Uint8Array): Promise<{ id: string; size: number; copies: number }>
}

export function createWebClient(address: string, key: string): WebClient {
  const send = async <T>(
    method: string,
    path: string,
    init: { body?: string | Uint8Array<ArrayBuffer>; headers?: Record<string, string> },
  ): Promise<T> => {
    const response = await fetch(new URL(path, address), {
      ...init,
      method,
      headers: { authorization: `Bearer ${key}`, ...init.headers },
      signal: AbortSignal.timeout(30_000),
    })
    const text = await response.text()
    if (!response.ok) throw new Error(`${method} ${path} answered ${response.status}: ${text.slice(0, 500)}`)
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
    putBody: (bytes) =>
      send('PUT', '/v1/bodies', {
        body: bytes as Uint8Array<ArrayBuffer>,
        headers: { 'content-type': 'application/octet-stream' },
      }),
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

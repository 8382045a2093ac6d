/** Which methods a path takes, asked when the router found nothing: a wrong method is no missing page. */
export interface RouteTable {
  add(method: string | string[], pattern: string): void
  /** Methods in alphabetical order; empty when the path is unknown. */
  methodsOf(path: string): string[]
}

export function createRouteTable(): RouteTable {
  const routes = new Map<string, { form: RegExp; methods: Set<string> }>()
  return {
    add: (method, pattern) => {
      const route = routes.get(pattern) ?? { form: formOf(pattern), methods: new Set<string>() }
      for (const each of [method].flat()) route.methods.add(each)
      routes.set(pattern, route)
    },
    methodsOf: (path) => {
      const methods = new Set<string>()
      for (const route of routes.values()) {
        if (route.form.test(path)) for (const method of route.methods) methods.add(method)
      }
      return [...methods].sort()
    },
  }
}

/** `/v1/jobs/:id/events` as an expression. */
function formOf(pattern: string): RegExp {
  const source = pattern
    .split('/')
    .map((part) => {
      if (part.startsWith(':')) return '[^/]+'
      return part === '*' ? '.*' : part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
    })
    .join('/')
  return new RegExp(`^${source}$`)
}

/**
 * What a viewer sees of a payload: its keys and the kinds of its values, none of the values. Payloads hold what people
 * told the application, and whoever watches queues need not read it.
 */
export function shapeOf(value: unknown, depth = 0): string {
  if (value === null) return 'null'
  if (Array.isArray(value)) return `list of ${value.length}`
  if (typeof value !== 'object') return kinds[typeof value] ?? typeof value
  const entries = Object.entries(value)
  if (depth >= maxDepth) return `object of ${entries.length}`
  const indent = '  '.repeat(depth + 1)
  const lines = entries
    .slice(0, maxKeys)
    .map(([key, each]) => `${indent}${key.slice(0, maxKeyLength)}: ${shapeOf(each, depth + 1)}`)
  if (entries.length > maxKeys) lines.push(`${indent}… and ${entries.length - maxKeys} more`)
  return lines.length === 0 ? '{}' : `{\n${lines.join('\n')}\n${'  '.repeat(depth)}}`
}

const maxDepth = 4
const maxKeys = 50
const maxKeyLength = 100
const kinds: Record<string, string> = { string: 'text', number: 'number', boolean: 'true or false' }

interface Field {
  name: string
  min: number
  max: number
  words: string[]
}

const fields: Field[] = [
  { name: 'minute', min: 0, max: 59, words: [] },
  { name: 'hour', min: 0, max: 23, words: [] },
  { name: 'day of the month', min: 1, max: 31, words: [] },
  { name: 'month', min: 1, max: 12, words: 'jan feb mar apr may jun jul aug sep oct nov dec'.split(' ') },
  { name: 'day of the week', min: 0, max: 7, words: 'sun mon tue wed thu fri sat'.split(' ') },
]

/** What is wrong with a cron expression of five fields, or undefined. Lists, ranges, steps and names are understood. */
export function cronFault(cron: string): string | undefined {
  const parts = cron.trim().split(/\s+/)
  if (parts.length !== fields.length) {
    return 'must have five fields: minute, hour, day of the month, month, day of the week'
  }
  for (const [index, field] of fields.entries()) {
    const terms = (parts[index] ?? '').split(',')
    if (!terms.every((term) => isTerm(term, field))) {
      return `has no ${field.name} (${field.min} to ${field.max}) in ${JSON.stringify(parts[index])}`
    }
  }
  return undefined
}

function isTerm(term: string, field: Field): boolean {
  const match = /^(?:(\*)|(\w+)(?:-(\w+))?)(?:\/(\d+))?$/.exec(term)
  if (!match) return false
  const [, star, from, to, step] = match
  if (step !== undefined && Number(step) < 1) return false
  if (star) return true
  const low = numberOf(from, field)
  const high = to === undefined ? low : numberOf(to, field)
  return low >= field.min && high <= field.max && low <= high
}

/** NaN, which is within no bounds, for what is neither a number nor one of the field's words. */
function numberOf(text: string | undefined, field: Field): number {
  if (text === undefined) return Number.NaN
  if (/^\d+$/.test(text)) return Number(text)
  const index = field.words.indexOf(text.toLowerCase())
  return index < 0 ? Number.NaN : index + field.min
}

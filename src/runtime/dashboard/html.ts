/**
 * HTML that may be sent as it stands. Only `html` makes it, and `html` escapes whatever is put into it that is not
 * itself Html: so a page that forgets to escape cannot be written.
 */
export interface Html {
  readonly [trusted]: string
}

/** What may stand in a template. Lists are joined; `undefined`, `null` and `false` are nothing. */
export type Hole = Html | string | number | undefined | null | false | readonly Hole[]

const trusted = Symbol('trusted')

/** Only for text and for attributes in double quotes; there are no holes in tags, in scripts or in styles. */
export function html(strings: TemplateStringsArray, ...holes: Hole[]): Html {
  const parts = strings.map((text, index) => (index === 0 ? text : fill(holes[index - 1]) + text))
  return { [trusted]: parts.join('') }
}

export const textOf = (page: Html): string => page[trusted]

function fill(hole: Hole): string {
  if (hole === undefined || hole === null || hole === false) return ''
  if (typeof hole === 'number') return String(hole)
  if (typeof hole === 'string') return escape(hole)
  return isList(hole) ? hole.map(fill).join('') : hole[trusted]
}

const isList = (hole: Html | readonly Hole[]): hole is readonly Hole[] => Array.isArray(hole)

const entities: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
  '`': '&#96;',
}

const escape = (text: string): string =>
  text.replaceAll(/[&<>"'`]/g, (character) => entities[character] ?? '')

/** As much of an OpenAPI document as the page shows. */
export interface ApiDocument {
  info: { title: string; description?: string }
  paths: Record<string, Record<string, Operation>>
}

interface Operation {
  tags?: string[]
  summary?: string
  description?: string
  security?: unknown[]
  parameters?: { name: string; in: string; required?: boolean; description?: string; schema?: unknown }[]
  requestBody?: { content?: Record<string, { schema?: unknown }> }
  responses?: Record<string, Answer>
}

interface Answer {
  description?: string
  content?: Record<string, { schema?: unknown }>
}

/** The whole reference on one page that can be read, searched and printed without a script. */
export function renderDocuments(document: ApiDocument, errorsTable: string): string {
  const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
  )
  const shown = operations.filter(({ method }) => method !== 'head')
  const body = shown.map(({ path, method, operation }) => renderOperation(path, method, operation)).join('\n')
  const index = shown
    .map(
      ({ path, method, operation }) =>
        `<li><a href="#${anchorOf(path, method)}"><code>${method.toUpperCase()} ${escapeHtml(path)}</code></a> ` +
        `${escapeHtml(operation.summary ?? '')}</li>`,
    )
    .join('\n')
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(document.info.title)}: HTTP API</title>
<link rel="stylesheet" href="/docs/style.css">
</head>
<body>
<header><h1>${escapeHtml(document.info.title)}: HTTP API</h1>
<p>${prose(document.info.description ?? '')}</p>
<p>For machines: <a href="/openapi.json">/openapi.json</a> (OpenAPI 3.1).</p></header>
<nav aria-label="Routes"><ul>
${index}
<li><a href="#errors">Errors</a></li>
</ul></nav>
<main>
${body}
<section id="errors"><h2>Errors</h2>
${renderErrors(errorsTable)}
</section>
</main>
</body>
</html>
`
}

function renderOperation(path: string, method: string, operation: Operation): string {
  const parts = [
    `<h2><code>${method.toUpperCase()} ${escapeHtml(path)}</code></h2>`,
    `<p><strong>${escapeHtml(operation.summary ?? '')}</strong>${operation.security ? '' : ' · no key needed'}</p>`,
  ]
  if (operation.description) parts.push(`<p>${prose(operation.description)}</p>`)
  if (operation.parameters?.length) parts.push(renderParameters(operation.parameters))
  for (const [type, { schema }] of Object.entries(operation.requestBody?.content ?? {})) {
    parts.push(renderSchema(`Body: ${type}`, schema))
  }
  for (const [status, answer] of Object.entries(operation.responses ?? {}))
    parts.push(renderAnswer(status, answer))
  return `<section id="${anchorOf(path, method)}">\n${parts.join('\n')}\n</section>`
}

function renderAnswer(status: string, { description, content }: Answer): string {
  const heading = `<h3>${escapeHtml(status)}</h3><p>${prose(description ?? '')}</p>`
  // Problems have all the same form, which is told once.
  if (Number(status) >= 400) return heading
  return (
    heading +
    Object.entries(content ?? {})
      .map(([type, { schema }]) => renderSchema(type, schema))
      .join('')
  )
}

function renderParameters(parameters: NonNullable<Operation['parameters']>): string {
  const rows = parameters.map(
    ({ name, in: place, required, schema, description }) =>
      `<tr><td><code>${escapeHtml(name)}</code></td><td>${escapeHtml(place)}${required ? ', required' : ''}</td>` +
      `<td>${description ? prose(description) : `<code>${escapeHtml(JSON.stringify(schema ?? {}))}</code>`}</td></tr>`,
  )
  return `<table><thead><tr><th>parameter</th><th>in</th><th>what</th></tr></thead><tbody>${rows.join('')}</tbody></table>`
}

const renderSchema = (title: string, schema: unknown): string =>
  `<details><summary>${escapeHtml(title)}</summary><pre tabindex="0">${escapeHtml(JSON.stringify(schema ?? {}, null, 2))}</pre></details>`

/** The rows of docs/errors.md; each code is the target of the `type` of a problem. */
function renderErrors(markdown: string): string {
  const rows = markdown
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) => line.split('|').slice(1, -1))
    .map(([code = '', status = '', retry = '', ...about]) => {
      const name = code.trim().replaceAll('`', '')
      return (
        `<tr id="${escapeHtml(name)}"><td><code>${escapeHtml(name)}</code></td><td>${escapeHtml(status.trim())}</td>` +
        `<td>${escapeHtml(retry.trim())}</td><td>${prose(about.join('|').trim())}</td></tr>`
      )
    })
  return `<table><thead><tr><th>code</th><th>status</th><th>retry</th><th>what happened, what to do</th></tr></thead><tbody>
${rows.join('\n')}
</tbody></table>`
}

const anchorOf = (path: string, method: string): string =>
  `${method}${path.replace(/[^A-Za-z0-9]+/g, '-').replace(/-$/, '')}`

/** Text with `code` in back-ticks. */
const prose = (text: string): string => escapeHtml(text).replace(/`([^`]+)`/g, '<code>$1</code>')

const entities: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (sign) => entities[sign] ?? sign)

export const stylesheet = `:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { margin: 0 auto; max-width: 60rem; padding: 1rem; }
section { border-top: 1px solid; margin-top: 2rem; padding-top: .5rem; }
h2 { font-size: 1.2rem; overflow-wrap: anywhere; }
h3 { font-size: 1rem; margin-bottom: 0; }
code, pre { font: .9em ui-monospace, monospace; }
pre { overflow: auto; padding: .5rem; border: 1px solid; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border: 1px solid; padding: .25rem .5rem; text-align: left; vertical-align: top; }
nav ul { list-style: none; padding: 0; }
`

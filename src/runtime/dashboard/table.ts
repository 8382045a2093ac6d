import { type Hole, type Html, html } from './html.ts'

export interface Table {
  caption: string
  columns: readonly Column[]
  rows: readonly Row[]
  /** Shown instead of a table without rows. */
  empty: string
}

export interface Column {
  label: string
  /** Figures stand at the right, digits below digits. */
  figure?: boolean
  /** For a column of buttons or boxes, whose label is only heard. */
  quiet?: boolean
}

export interface Row {
  /** The first names the row. */
  cells: readonly Hole[]
  /** Set off from the others, such as a node that is dead. */
  bad?: boolean
}

/** On a narrow screen each row becomes a card, and the labels of the columns stand in it. */
export function table({ caption, columns, rows, empty }: Table): Html {
  if (rows.length === 0)
    return html`<section class="table-empty"><h2>${caption}</h2><p class="help">${empty}</p></section>`
  return html`<div class="table-frame"><table>
<caption>${caption}</caption>
<thead><tr>${columns.map(headOf)}</tr></thead>
<tbody>${rows.map((row) => rowOf(columns, row))}</tbody>
</table></div>`
}

const headOf = ({ label, figure, quiet }: Column): Html =>
  html`<th scope="col"${figure ? html` class="figure"` : ''}>${quiet ? html`<span class="unseen">${label}</span>` : label}</th>`

const rowOf = (columns: readonly Column[], { cells, bad }: Row): Html =>
  html`<tr${bad ? html` class="bad"` : ''}>${cells.map((cell, index) => cellOf(columns[index], cell, index))}</tr>
`

function cellOf(column: Column | undefined, cell: Hole, index: number): Html {
  const label = column?.quiet ? '' : (column?.label ?? '')
  const kind = column?.figure ? html` class="figure"` : ''
  return index === 0
    ? html`<th scope="row"${kind} data-label="${label}">${cell}</th>`
    : html`<td${kind} data-label="${label}">${cell}</td>`
}

/** Pairs of a word and what there is to say of it. */
export const facts = (pairs: readonly (readonly [Hole, Hole])[]): Html =>
  html`<dl class="facts">${pairs.map(([term, value]) => html`<div><dt>${term}</dt><dd>${value}</dd></div>`)}</dl>`

import { toIso } from '../../core/clock.ts'
import type { Assets } from './assets.ts'
import { type Hole, type Html, html, textOf } from './html.ts'
import { home, type NavEntry, type View, type Visitor } from './page.ts'

export interface LayoutOptions {
  assets: Assets
  nav: readonly NavEntry[]
  site: string
  /** Stands on every page: what whoever looks has to know first. */
  warning?(): Hole
}

interface Frame {
  view: View
  visitor: Visitor
  token: Html
  now: number
}

/** A page with its navigation, for somebody who is logged in. */
export function renderPage(options: LayoutOptions, { view, visitor, token, now }: Frame): string {
  const readAt = view.readAt ?? toIso(now)
  return document(options, {
    title: view.title,
    script: true,
    attributes: html` data-now="${now}"${view.live ? html` data-live-page` : ''}`,
    body: html`<a class="skip" href="#content">Skip to the content</a>
<header class="top">
  <a class="brand" href="${home}">Baton<span class="site">${options.site}</span></a>
  <nav aria-label="Pages"><ul>${navOf(options, view, visitor)}</ul></nav>
  <form class="who" method="post" action="${home}/log-out">${token}
    <span>${visitor.principal.name} <span class="role">${visitor.principal.role}</span></span>
    <button class="quiet">Log out</button></form>
</header>
<main id="content" tabindex="-1">
  ${options.warning?.()}
  <h1>${view.title}</h1>
  ${view.content}
</main>
<footer>
  <p class="read-at" data-live="read-at">Read at <time datetime="${readAt}" data-absolute>${readAt.slice(0, 19).replace('T', ' ')} UTC</time></p>
  <p class="live-state" role="status" data-live-state></p>
</footer>`,
  })
}

const navOf = (options: LayoutOptions, view: View, visitor: Visitor): Hole =>
  options.nav
    .filter((entry) => visitor.isOperator || entry.operatorOnly !== true)
    .map(
      (entry) =>
        html`<li><a href="${entry.href}"${entry.href === view.active ? html` aria-current="page"` : ''}>${entry.label}</a></li>`,
    )

/** A page for somebody who is not logged in, or for whom nothing can be read now. */
export function renderBare(
  options: LayoutOptions,
  view: Pick<View, 'title' | 'content'> & { head?: Html },
): string {
  return document(options, {
    title: view.title,
    script: false,
    head: view.head,
    attributes: html` class="bare"`,
    body: html`<main id="content">
  <p class="brand">Baton<span class="site">${options.site}</span></p>
  <h1>${view.title}</h1>
  ${view.content}
</main>`,
  })
}

interface Document {
  title: string
  script: boolean
  head?: Html | undefined
  attributes: Html
  body: Html
}

const document = ({ assets }: LayoutOptions, page: Document): string =>
  textOf(html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${page.title} · Baton</title>
<link rel="stylesheet" href="${assets.style.url}">
<link rel="icon" href="${assets.icon.url}" type="image/svg+xml">
${page.script && html`<script src="${assets.script.url}" defer></script>`}
${page.head}
</head>
<body${page.attributes}>
${page.body}
</body>
</html>
`)

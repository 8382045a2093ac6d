import { describe, expect, it } from 'vitest'
import { duration, figure, instant, lowerBound, size } from '../../../src/runtime/dashboard/figures.ts'
import { html, textOf } from '../../../src/runtime/dashboard/html.ts'
import { shapeOf } from '../../../src/runtime/dashboard/shape.ts'

describe('html', () => {
  it('escapes whatever is put in, in text and in attributes', () => {
    const evil = `"><img src=x onerror='alert(1)'>&\``
    expect(textOf(html`<p title="${evil}">${evil}</p>`)).toBe(
      '<p title="&quot;&gt;&lt;img src=x onerror=&#39;alert(1)&#39;&gt;&amp;&#96;">' +
        '&quot;&gt;&lt;img src=x onerror=&#39;alert(1)&#39;&gt;&amp;&#96;</p>',
    )
  })

  it('takes templates within templates and lists of them as they are, and escapes once', () => {
    const item = (text: string) => html`<li>${text}</li>`
    expect(textOf(html`<ul>${['a & b', '<c>'].map(item)}</ul>`)).toBe(
      '<ul><li>a &amp; b</li><li>&lt;c&gt;</li></ul>',
    )
    expect(textOf(html`${['<', ['>', html`<br>`]]}`)).toBe('&lt;&gt;<br>')
  })

  it('leaves out what is not there, but not a zero', () => {
    expect(textOf(html`[${undefined}${null}${false}${0}${''}]`)).toBe('[0]')
  })

  it('does not take an object from outside for HTML', () => {
    const forged = JSON.parse('{"trusted":"<b>","Symbol(trusted)":"<b>"}') as never
    expect(textOf(html`${forged}`)).not.toContain('<b>')
  })
})

describe('figures', () => {
  it('mark estimates with a sign and in words', () => {
    expect(textOf(figure(1_234_567))).toBe('1,234,567')
    expect(textOf(figure(1_234_567, false))).toMatch(/title="an estimate">≈ 1,234,567</)
    expect(textOf(lowerBound(0, false))).toMatch(/title="at least[^"]*">≥ 0</)
    expect(textOf(lowerBound(3, true))).toBe('3')
  })

  it.each([
    [0, '0 s'],
    [850, '850 ms'],
    [12_999, '12 s'],
    [61_000, '1 min 1 s'],
    [754_000, '12 min'],
    [3_600_000, '1 h'],
    [90_000_000, '1 d 1 h'],
  ])('tell %d ms as %s', (ms, text) => {
    expect(duration(ms)).toBe(text)
  })

  it('tell sizes and instants, the exact instant beside the relative', () => {
    expect([size(12), size(3_500), size(20 * 1_048_576)]).toEqual(['12 B', '3.4 KiB', '20 MiB'])
    const now = Date.parse('2030-01-01T00:01:00.000Z')
    expect(textOf(instant('2030-01-01T00:00:00.000Z', now))).toBe(
      '<time datetime="2030-01-01T00:00:00.000Z" title="2030-01-01T00:00:00.000Z">1 min ago</time>',
    )
    expect(textOf(instant('2030-01-01T00:02:00.000Z', now))).toContain('>in 1 min<')
  })
})

describe('shape', () => {
  it('tells keys and kinds, and no value', () => {
    const shape = shapeOf({
      to: 'ann@example.org',
      copies: 3,
      html: true,
      none: null,
      tags: ['x', 'y'],
      deep: { pin: '1234' },
    })
    expect(shape).toBe(
      '{\n  to: text\n  copies: number\n  html: true or false\n  none: null\n  tags: list of 2\n  deep: {\n    pin: text\n  }\n}',
    )
  })

  it('stays short, however large the payload', () => {
    const wide = Object.fromEntries(
      Array.from({ length: 10_000 }, (_, index) => ['k'.repeat(500) + index, index]),
    )
    let deep: unknown = 1
    for (let level = 0; level < 10_000; level++) deep = { deep }
    expect(shapeOf(wide).length).toBeLessThan(10_000)
    expect(shapeOf(deep).length).toBeLessThan(200)
  })
})

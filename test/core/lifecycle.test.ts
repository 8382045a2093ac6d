import { describe, expect, it } from 'vitest'
import { createReleasers, withLimit } from '../../src/core/lifecycle.ts'

describe('releasers', () => {
  it('run once, the last first, one after another', async () => {
    const done: string[] = []
    const releasers = createReleasers(() => undefined)
    releasers.add('first', () => void done.push('first'))
    releasers.add('second', async () => {
      await Promise.resolve()
      done.push('second')
    })
    await Promise.all([releasers.release(), releasers.release()])
    await releasers.release()
    expect(done).toEqual(['second', 'first'])
  })

  it('go on when one throws, rejects or hangs, and say which did not close', async () => {
    const said: string[] = []
    const done: string[] = []
    const releasers = createReleasers((message) => void said.push(message), 20)
    releasers.add('last', () => void done.push('last'))
    releasers.add('hangs', () => new Promise(() => undefined))
    releasers.add('rejects', () => Promise.reject(new Error('broken')))
    releasers.add('throws', () => {
      throw new Error('at once')
    })
    await releasers.release()
    expect(done).toEqual(['last'])
    expect(said).toEqual([
      'throws did not close: at once',
      'rejects did not close: broken',
      'hangs did not close: no answer within 20 ms',
    ])
  })

  it('release what was opened while they were at it', async () => {
    const done: string[] = []
    const releasers = createReleasers(() => undefined)
    releasers.add('opens another', () => releasers.add('late', () => void done.push('late')))
    await releasers.release()
    expect(done).toEqual(['late'])
  })
})

describe('withLimit', () => {
  it('settles as the work does when that is in time', async () => {
    expect(await withLimit(Promise.resolve(5), 1_000)).toBe(5)
    await expect(withLimit(Promise.reject(new Error('no')), 1_000)).rejects.toThrow('no')
  })

  it('rejects when the work takes longer', async () => {
    await expect(withLimit(new Promise(() => undefined), 10)).rejects.toThrow('no answer within 10 ms')
  })
})

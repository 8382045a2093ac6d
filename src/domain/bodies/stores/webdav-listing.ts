import type { IncomingMessage } from 'node:http'
import { isBodyId } from '../body-id.ts'
import type { StoredBody } from '../body-store.ts'
import { BODY_UNAVAILABLE } from '../errors.ts'
import { unexpected } from './answers.ts'
import { discard, type HttpExchange, readText } from './http-client.ts'

/** Sends a request about a folder, `bodies/` or `bodies/ab/`. */
type Ask = (
  exchange: Pick<HttpExchange, 'method' | 'body'> & { headers?: Record<string, string> },
  folder: string,
) => Promise<IncomingMessage>

/** What stands in a folder. Undefined: the server does not list that way. */
type Listing = (folder: string) => Promise<Entry[] | undefined>

interface Entry {
  name: string
  mtime: string
  size: number
}

const maxListingBytes = 64 * 1_048_576

/**
 * Reads the folders of bodies, `bodies/` and in it `ab/`, …, each at most once a page: by PROPFIND (RFC 4918, 9.1), or
 * as nginx lists them as JSON. What has worked once is asked first.
 */
export function createWebdavLister(
  store: string,
  ask: Ask,
): (after: string | undefined, limit: number) => Promise<StoredBody[]> {
  let ways: Listing[] = [createFinding(store, ask), createIndex(store, ask)]

  const entriesOf = async (folder: string): Promise<Entry[]> => {
    for (const way of ways) {
      const entries = await way(folder)
      if (!entries) continue
      ways = [way, ...ways.filter((each) => each !== way)]
      return entries
    }
    const reason =
      'it does not list its folders, neither by PROPFIND nor as JSON (nginx: autoindex on; autoindex_format json)'
    throw BODY_UNAVAILABLE({ store, reason })
  }

  return async (after, limit) => {
    const page: StoredBody[] = []
    const names = (await entriesOf('bodies/')).map((entry) => entry.name)
    const folders = names.filter((name) => /^[0-9a-f]{2}$/.test(name)).sort()
    for (const folder of folders.filter((each) => after === undefined || each >= after.slice(0, 2))) {
      const bodies = (await entriesOf(`bodies/${folder}/`))
        .filter((entry) => isBodyId(entry.name) && (after === undefined || entry.name > after))
        .sort((a, b) => (a.name < b.name ? -1 : 1))
      for (const { name, size, mtime } of bodies) {
        page.push({ id: name, size, modifiedAt: Date.parse(mtime) || 0 })
        if (page.length >= limit) return page
      }
    }
    return page
  }
}

/** The text of an answer with this status; none, `''`, of a folder that is not there. Undefined: not this way. */
async function textOf(store: string, answer: IncomingMessage, status: number): Promise<string | undefined> {
  if (answer.statusCode === status) return readText(answer, maxListingBytes)
  if ((answer.statusCode ?? 0) >= 500 && answer.statusCode !== 501) throw unexpected(store, answer)
  await discard(answer)
  return answer.statusCode === 404 ? '' : undefined
}

const question = Buffer.from(
  '<?xml version="1.0"?><propfind xmlns="DAV:"><prop><getcontentlength/><getlastmodified/></prop></propfind>',
)

const createFinding =
  (store: string, ask: Ask): Listing =>
  async (folder) => {
    const body = {
      size: question.length,
      open: async function* () {
        yield question
      },
    }
    const headers = { Depth: '1', 'Content-Type': 'application/xml' }
    const xml = await textOf(store, await ask({ method: 'PROPFIND', headers, body }, folder), 207)
    return xml === undefined ? undefined : readMultistatus(xml)
  }

/** Names of elements may bear any prefix; the texts that count hold nothing that XML would escape. */
function readMultistatus(xml: string): Entry[] {
  return [...xml.matchAll(/<(?:\w+:)?response[\s>](.*?)<\/(?:\w+:)?response>/gs)].map(([, response = '']) => {
    const of = (tag: string): string =>
      new RegExp(`<(?:\\w+:)?${tag}(?:\\s[^>]*)?>([^<]*)<`).exec(response)?.[1]?.trim() ?? ''
    const name = of('href').replace(/\/$/, '').split('/').at(-1) ?? ''
    return { name, size: Number(of('getcontentlength')), mtime: of('getlastmodified') }
  })
}

const createIndex =
  (store: string, ask: Ask): Listing =>
  async (folder) => {
    const text = await textOf(store, await ask({ method: 'GET' }, folder), 200)
    if (text === undefined || text === '') return text === '' ? [] : undefined
    try {
      return (JSON.parse(text) as Partial<Entry>[]).map(({ name = '', mtime = '', size = 0 }) => ({
        name,
        mtime,
        size,
      }))
    } catch {
      return undefined
    }
  }

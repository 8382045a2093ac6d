import { createHash } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { expect, it } from 'vitest'
import { atEndOfTest, freePort, projectRoot, spawnBaton } from '../support/processes.ts'
import { openSite } from '../support/workers.ts'

/** The example of a page that defines this job, as a user would copy it, with its imports made absolute. */
async function exampleOf(page: string, name: string): Promise<string> {
  const text = await readFile(path.join(projectRoot, page), 'utf8')
  const blocks = [...text.matchAll(/^( *)```ts\n(.*?)^\1```/gms)].map(([, indent = '', code = '']) =>
    code.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
  )
  const code = blocks.find((block) => block.includes(`name: '${name}'`))
  if (code === undefined) throw new Error(`${page} has no example named ${name}`)
  return code
    .replaceAll("from '../", `from '${pathToFileURL(projectRoot).href}/`)
    .replaceAll("from './", `from '${pathToFileURL(path.join(projectRoot, 'jobs')).href}/`)
    .replaceAll("from 'typebox'", `from '${import.meta.resolve('typebox')}'`)
}

async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'baton-examples-'))
  atEndOfTest(() => rm(folder, { recursive: true }))
  return folder
}

it('the job of the README and that of docs/jobs.md run as they stand there', async () => {
  const folder = await temporaryFolder()
  await writeFile(path.join(folder, 'hello.ts'), await exampleOf('README.md', 'hello'))
  await writeFile(path.join(folder, 'count.ts'), await exampleOf('docs/jobs.md', 'count'))
  const list =
    "import { count } from './count.ts'\nimport { hello } from './hello.ts'\nexport const jobs = [count, hello]\n"
  await writeFile(path.join(folder, 'index.ts'), list)

  const site = await openSite({ engine: 'postgres' })
  const port = await freePort()
  const env = {
    JOBS_MODULE: path.join(folder, 'index.ts'),
    BODY_STORES: `file:${folder}/a,file:${folder}/b`,
    BATON_API_KEYS: 'producer:a-key-of-sixteen-characters',
    HOST: '127.0.0.1',
    PORT: String(port),
  }
  const web = spawnBaton(['web'], { DATABASE_URL: site.databaseUrl, ...env })
  await Promise.all([site.startWorker(env), web.waitForLine(/web takes requests/)])

  const table = 'name,country\nRoma,IT\nBerlin,DE\nMilano,IT\n'
  const put = await fetch(`http://127.0.0.1:${port}/v1/bodies`, {
    method: 'PUT',
    headers: { authorization: 'Bearer a-key-of-sixteen-characters' },
    body: table,
  })
  const { id: body } = (await put.json()) as { id: string }
  expect(body).toBe(createHash('sha256').update(table).digest('hex'))
  const greeted = await site.jobIs(await site.enqueue('hello', { to: 'you' }), 'completed')
  expect(greeted.result).toBe('hello you')
  const counted = await site.jobIs(await site.enqueue('count', { body, column: 'country' }), 'completed')
  expect(counted.result).toEqual({ IT: 2, DE: 1 })
})

import { readFile } from 'node:fs/promises'
import sharp from 'sharp'
import { type Enqueued, finished, type Scene, type Stage } from '../stage.ts'

const zoneTable = '/usr/share/zoneinfo/zone1970.tab'

/** The three jobs that come along, on real input. */
export const realFiles: Scene = {
  title: 'Three jobs on real files',
  async play(stage) {
    const csv = await timeZones(stage)
    const table = await stage.client.putBody(Buffer.from(csv))
    stage.promise(`the table is stored as ${table.copies} verified copies`, table.copies === 2)
    await importZones(stage, table.id, csv.trim().split('\n').length - 1)
    await reportZones(stage, table.id)
    await thumbnails(stage)
    await brokenPicture(stage)
  },
}

const enqueue = (stage: Stage, name: string, payload: unknown): Promise<Enqueued> =>
  stage.client.call('POST', '/v1/jobs', { name, payload })

async function importZones(stage: Stage, body: string, rows: number): Promise<void> {
  const { id } = await enqueue(stage, 'import', { body, dataset: 'time-zones' })
  const job = await finished(stage, id, 20_000)
  const result = job.result as { rows: number; rejected: unknown[] } | undefined
  stage.promise(`import: ${result?.rows} of ${rows} time zones are in the table`, result?.rows === rows)
}

async function reportZones(stage: Stage, body: string): Promise<void> {
  const { id } = await enqueue(stage, 'report', { body, column: 'area' })
  const job = await finished(stage, id, 20_000)
  const counts = Object.entries((job.result ?? {}) as Record<string, number>).sort(([, a], [, b]) => b - a)
  const top = counts.slice(0, 3).map(([area, count]) => `${area} ${count}`)
  stage.promise(`report: zones by area: ${top.join(', ')}, …`, job.state === 'completed' && counts.length > 3)
}

async function thumbnails(stage: Stage): Promise<void> {
  const picture = await stage.client.putBody(await landscape())
  const { id } = await enqueue(stage, 'photo', { body: picture.id, widths: [640, 160] })
  const job = await finished(stage, id, 30_000)
  const result = job.result as { thumbnails: { width: number; height: number; body: string }[] } | undefined
  const sizes = result?.thumbnails.map(({ width, height }) => `${width}×${height}`) ?? []
  stage.promise(`photo: thumbnails ${sizes.join(' and ')}`, sizes.length === 2)
}

async function brokenPicture(stage: Stage): Promise<void> {
  const whole = await landscape()
  const broken = await stage.client.putBody(whole.subarray(0, 2_000))
  const { id } = await enqueue(stage, 'photo', { body: broken.id, widths: [160] })
  const job = await finished(stage, id, 30_000)
  stage.promise(`photo: a broken picture fails clearly: "${job.error?.message}"`, job.state === 'failed')
}

/** The time zones that every Debian carries, as CSV; a few of them where the table is missing. */
async function timeZones(stage: Stage): Promise<string> {
  const text = await readFile(zoneTable, 'utf8').catch(() => {
    stage.say(`(${zoneTable} is not here, so a short list stands in)`)
    return [
      'AD\t+4230+00131\tEurope/Andorra',
      'AE\t+2518+05518\tAsia/Dubai',
      'AG\t+1703-06148\tAmerica/Antigua',
      'ZA\t-2615+02800\tAfrica/Johannesburg',
    ].join('\n')
  })
  const rows = text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => {
      const [countries = '', place = '', zone = ''] = line.split('\t')
      return `"${countries}",${place},${zone},${zone.split('/')[0]}`
    })
  return `countries,place,zone,area\n${rows.join('\n')}\n`
}

/** A picture of some megapixels, with hills and a sky. */
async function landscape(): Promise<Buffer> {
  const hills = `<svg xmlns="http://www.w3.org/2000/svg" width="2400" height="1600">
    <defs><linearGradient id="sky" x2="0" y2="1"><stop stop-color="#27508c"/><stop offset="1" stop-color="#f6c89a"/></linearGradient></defs>
    <rect width="2400" height="1600" fill="url(#sky)"/>
    <circle cx="1750" cy="620" r="130" fill="#fff3d0"/>
    <path d="M0 1200 Q400 800 900 1100 T1700 1000 T2400 1150 V1600 H0Z" fill="#3f5e4b"/>
    <path d="M0 1400 Q600 1150 1200 1380 T2400 1350 V1600 H0Z" fill="#22382c"/></svg>`
  return sharp(Buffer.from(hills)).jpeg({ quality: 90 }).toBuffer()
}

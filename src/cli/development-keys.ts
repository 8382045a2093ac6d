import { randomBytes } from 'node:crypto'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

/** Secrets of `dev`, kept under .baton/ so that a key in a terminal's history still works tomorrow. */
export interface DevelopmentKeys {
  secret: string
  operator: string
  producer: string
}

const file = fileURLToPath(new URL('../../.baton/development-keys.json', import.meta.url))

export async function readDevelopmentKeys(): Promise<DevelopmentKeys> {
  const text = await readFile(file, 'utf8').catch(() => undefined)
  if (text) return JSON.parse(text) as DevelopmentKeys
  const keys: DevelopmentKeys = {
    secret: randomBytes(32).toString('hex'),
    operator: `dev-operator-${randomBytes(12).toString('hex')}`,
    producer: `dev-producer-${randomBytes(12).toString('hex')}`,
  }
  await mkdir(path.dirname(file), { recursive: true })
  await writeFile(file, JSON.stringify(keys), { mode: 0o600 })
  return keys
}

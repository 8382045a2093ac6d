import { readFile } from 'node:fs/promises'
import type { FastifyInstance } from 'fastify'
import { sha256 } from '../../core/digest.ts'
import { home } from './page.ts'

/** The files that pages name, each at an address that changes with its bytes: so they may be kept for ever. */
export interface Assets {
  style: Asset
  script: Asset
  icon: Asset
}

interface Asset {
  url: string
  path: string
  type: string
  bytes: Buffer
}

export async function readAssets(): Promise<Assets> {
  const [style, script, icon] = await Promise.all([
    readAsset('style.css', 'text/css; charset=utf-8'),
    readAsset('script.js', 'text/javascript; charset=utf-8'),
    readAsset('icon.svg', 'image/svg+xml'),
  ])
  return { style, script, icon }
}

async function readAsset(file: string, type: string): Promise<Asset> {
  const bytes = await readFile(new URL(`./assets/${file}`, import.meta.url))
  const dot = file.lastIndexOf('.')
  const path = `/assets/${file.slice(0, dot)}.${sha256(bytes).slice(0, 12)}${file.slice(dot)}`
  return { url: home + path, path, type, bytes }
}

/** The script is of no use without a page, so only the stylesheet and the icon of the log-in page are open to all. */
export function addAssets(server: FastifyInstance, assets: Assets): void {
  for (const asset of Object.values<Asset>({ ...assets })) {
    const withoutLogIn = asset !== assets.script
    server.get(asset.path, { config: { withoutLogIn } }, (_request, reply) =>
      reply.header('cache-control', 'public, max-age=31536000, immutable').type(asset.type).send(asset.bytes),
    )
  }
}

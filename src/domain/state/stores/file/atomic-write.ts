import { randomInt } from 'node:crypto'
import { constants } from 'node:fs'
import { chown, mkdir, open, rename, stat, unlink } from 'node:fs/promises'
import path from 'node:path'
import { codeOf, messageOf } from '../../../../core/errors.ts'
import { STATE_STORE_FULL, STATE_TARGET_READ_ONLY } from '../../errors.ts'

export interface WriteOptions {
  /** µs since the epoch; now unless said. */
  updatedAtMicros?: number
  /** Who shall own the file; only root can give files away. */
  owner?: Owner
}

export interface Owner {
  uid: number
  gid: number
}

/**
 * Writes as Utils::SafePutContents does (lib/utils/utils.php:961), to `tmp-<number>-<name>` beside the target and by a
 * rename, and syncs before the rename: without that a crash of the machine can leave an empty or NUL-filled file
 * under the right name. The folder is not synced here, so that a batch can do it once (syncFolder).
 */
export async function writeAtomically(
  file: string,
  bytes: Buffer,
  options: WriteOptions = {},
): Promise<void> {
  const temporary = path.join(path.dirname(file), `tmp-${randomInt(1, 2 ** 32)}-${path.basename(file)}`)
  try {
    await writeTemporary(temporary, bytes, options)
    await rename(temporary, file)
  } catch (error) {
    await unlink(temporary).catch(() => undefined)
    throw writeError(file, error)
  }
}

async function writeTemporary(temporary: string, bytes: Buffer, options: WriteOptions): Promise<void> {
  const handle = await open(temporary, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o644)
  try {
    await handle.writeFile(bytes)
    if (options.owner && isRoot()) await handle.chown(options.owner.uid, options.owner.gid)
    if (options.updatedAtMicros !== undefined) {
      const seconds = options.updatedAtMicros / 1_000_000
      await handle.utimes(seconds, seconds)
    }
    await handle.sync()
  } finally {
    await handle.close()
  }
}

const isRoot = (): boolean => process.getuid?.() === 0

/** Makes the folder and those above it, owned by whom the root belongs to. */
export async function makeFolder(folder: string, owner?: Owner): Promise<void> {
  try {
    const made = await mkdir(folder, { recursive: true, mode: 0o755 })
    if (made === undefined) return
    for (let each = folder; each.length >= made.length; each = path.dirname(each)) {
      if (owner && isRoot()) await chown(each, owner.uid, owner.gid)
      await syncFolder(path.dirname(each))
    }
  } catch (error) {
    throw writeError(folder, error)
  }
}

/** Makes the names in a folder survive a crash of the machine. */
export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, constants.O_RDONLY)
  try {
    await handle.sync()
  } catch (error) {
    // Some network file systems cannot sync a folder.
    if (codeOf(error) !== 'EINVAL') throw writeError(folder, error)
  } finally {
    await handle.close()
  }
}

export async function ownerOf(folder: string): Promise<Owner | undefined> {
  const stats = await stat(folder).catch(() => undefined)
  return stats && { uid: stats.uid, gid: stats.gid }
}

/** Names what a failed write means to whoever has to mend it. */
export function writeError(place: string, error: unknown): unknown {
  const code = codeOf(error)
  const reason = messageOf(error)
  if (code === 'ENOSPC' || code === 'EDQUOT' || code === 'EFBIG') {
    return STATE_STORE_FULL({ place, reason }, { cause: error })
  }
  if (code === 'EROFS' || code === 'EACCES' || code === 'EPERM') {
    return STATE_TARGET_READ_ONLY({ place, reason }, { cause: error })
  }
  return error
}

import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { codeOf } from '../../core/errors.ts'

/** What is started. */
export interface RevisionSpec {
  /** The program and its arguments. */
  command: string[]
  /** Absolute. */
  directory: string
  /** Added to the gateway's own environment. */
  environment: Record<string, string>
}

/** The process of a target, told from every other by both pid and identity. */
export interface ProcessRecord {
  pid: number
  /** See process-identity.ts. */
  identity: string
  port: number
}

export type TargetState = 'starting' | 'current' | 'detached' | 'draining' | 'stopped' | 'failed'

/** A target as the state file knows it. */
export interface TargetRecord {
  id: string
  revision: string
  spec: RevisionSpec
  state: TargetState
  /** Epoch ms. */
  createdAt: number
  /** Epoch ms. */
  detachedAt?: number
  /** Epoch ms at which it is too old to stay detached. */
  tooOldAt?: number
  /** Undefined: there is none just now. */
  process?: ProcessRecord
}

export interface GatewayRecord {
  /** Targets so far, for names that never come again. */
  count: number
  targets: TargetRecord[]
}

/** The variable by which a target's processes are found when everything else is lost. */
export const targetVariable = 'BATON_GATEWAY_TARGET'

/** The state file: what a gateway that comes after a killed one needs to know. */
export interface StateFile {
  /** @returns undefined when there is none, or it cannot be understood: then it is set aside */
  read(): GatewayRecord | undefined
  /** On the disk when it returns. Synchronous: what is written belongs to the step that follows it. */
  write(record: GatewayRecord): void
}

const version = 1

export function createStateFile(file: string, onBroken: (aside: string) => void): StateFile {
  return {
    read: () => {
      try {
        const { version: found, ...record } = JSON.parse(readFileSync(file, 'utf8')) as GatewayRecord & {
          version: number
        }
        if (found === version && isWhole(record)) return record
      } catch (error) {
        if (codeOf(error) === 'ENOENT') return undefined
      }
      rmSync(`${file}.broken`, { force: true })
      renameSync(file, `${file}.broken`)
      onBroken(`${file}.broken`)
      return undefined
    },
    write: (record) => {
      // Another gateway must never read half of it.
      const next = `${file}.next`
      writeFileSync(next, JSON.stringify({ version, ...record }), { mode: 0o600, flush: true })
      renameSync(next, file)
    },
  }
}

/** One that was mended by hand, or by a disk, must not keep the gateway from starting. */
function isWhole({ count, targets }: GatewayRecord): boolean {
  return Number.isInteger(count) && Array.isArray(targets) && targets.every(isTarget)
}

function isTarget(value: unknown): value is TargetRecord {
  if (typeof value !== 'object' || value === null) return false
  const { id, revision, state, createdAt, spec, process } = value as Partial<TargetRecord>
  const isNamed = [id, revision, state].every((each) => typeof each === 'string')
  const isSpec = Array.isArray(spec?.command) && typeof spec.directory === 'string'
  const isProcess =
    process === undefined || (Number.isInteger(process?.pid) && Number.isInteger(process.port))
  return isNamed && Number.isFinite(createdAt) && isSpec && isProcess
}

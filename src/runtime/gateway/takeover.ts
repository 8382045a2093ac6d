import type { Clock } from '../../core/clock.ts'
import type { Log } from '../../platform/log.ts'
import { processesWith, processIdentity } from './process-identity.ts'
import { type StateFile, type TargetRecord, targetVariable } from './record.ts'
import type { Roster } from './roster.ts'
import { adoptProcess } from './target-process.ts'

export interface TakeoverOptions {
  roster: Roster
  file: StateFile
  /** The end of the mark that processes of this gateway bear. */
  marker: string
  clock: Clock
  log: Log
}

/**
 * Takes over the targets that a killed gateway has left running, and kills what else it has left: processes that were
 * just being started, or whose record is lost.
 */
export function takeOver({ roster, file, marker, clock, log }: TakeoverOptions): void {
  const record = file.read()
  roster.continueFrom(record?.count ?? 0)
  for (const each of record?.targets ?? []) adopt(each)
  killUnknown(new Set(roster.targets.map(({ id }) => id)))
  roster.save()

  function adopt(each: TargetRecord): void {
    const process = each.process && each.state !== 'starting' ? adoptProcess(each.process, clock) : undefined
    if (!process) return
    const target = roster.restore(each)
    target.process = process
    target.up = true
    // Who is there is not known: keep.
    if (each.state !== 'draining') target.lease.forget()
    log.warn(
      { revision: each.revision, state: each.state, pid: process.record.pid },
      'a target was taken over',
    )
  }

  function killUnknown(known: ReadonlySet<string>): void {
    for (const { pid, value } of processesWith(targetVariable)) {
      const at = value.indexOf('@')
      if (value.slice(at) !== marker || known.has(value.slice(0, at)) || processIdentity(pid) === undefined)
        continue
      log.warn({ pid }, 'a process that an earlier gateway has left behind is killed')
      kill(pid)
    }
    // Where processes cannot be found by their environment, at least the one whose pid was written.
    for (const each of record?.targets ?? []) {
      if (each.process && !known.has(each.id)) adoptProcess(each.process, clock)?.signal('SIGKILL')
    }
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // It has gone by itself.
  }
}

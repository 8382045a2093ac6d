import { type Debugger, Session } from 'node:inspector'
import { workerData } from 'node:worker_threads'
import { createLog, type Log } from '../log.ts'
import { beatMs } from './messages.ts'
import type { WatchdogData } from './watchdog.ts'

// Runs as a thread of its own beside a blocked event loop.

const maxFrames = 30

watch(workerData as WatchdogData)

function watch(data: WatchdogData): void {
  const log = createLog({ level: data.logLevel, process: 'child' }).child(data.identity)
  const counter = new Int32Array(data.beats)
  const period = beatMs(data.watchdogMs)
  const silentBeats = Math.ceil(data.watchdogMs / period)
  let last = 0
  let missed = 0
  setInterval(() => {
    const beats = Atomics.load(counter, 0)
    missed = beats === last ? missed + 1 : 0
    last = beats
    if (missed === silentBeats) sampleMainThread(log, data.watchdogMs)
    // Nobody else ends a blocked child whose master is dead: it would burn a core for ever.
    if (missed >= silentBeats && process.ppid !== data.parentPid) process.kill(process.pid, 'SIGKILL')
  }, period)
}

/**
 * Interrupts the main thread for a moment and logs where it is. The inspector session lives inside of the
 * process and opens no port. A main thread inside of native code is sampled when it comes back to JavaScript.
 */
function sampleMainThread(log: Log, silentMs: number): void {
  const session = new Session()
  session.connectToMainThread()
  // The frames name scripts by number; all that are loaded are told when the debugger is enabled.
  const urls = new Map<string, string>()
  session.on('Debugger.scriptParsed', ({ params }) => void urls.set(params.scriptId, params.url))
  const toLine = ({ functionName, location }: Debugger.CallFrame): string =>
    `${functionName || '(anonymous)'} ${urls.get(location.scriptId) ?? ''}:${location.lineNumber + 1}`
  session.on('Debugger.paused', ({ params }) => {
    log.error(
      { silentMs, stack: params.callFrames.slice(0, maxFrames).map(toLine) },
      'event loop is blocked here',
    )
    session.post('Debugger.resume')
    session.post('Debugger.disable', () => session.disconnect())
  })
  session.post('Debugger.enable', () => session.post('Debugger.pause'))
}

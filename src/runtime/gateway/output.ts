import { closeSync, fstatSync, ftruncateSync, openSync, readSync, rmSync } from 'node:fs'

/**
 * What a target prints. It goes into a file and from there to the gateway's own output: at the end of a pipe it would
 * be ended by its next line when the gateway is killed.
 */
export interface TargetOutput {
  /** Passes on what has come; to be called when the target has ended, too. */
  flush(): void
  /** The last lines that it printed, as far as they are in the file's last 8 KiB. */
  lastLines(count: number): string[]
  close(): void
}

export interface TargetOutputOptions {
  file: string
  /** Of a target that was taken over: what it printed before is not repeated. */
  fromEnd: boolean
  print(text: string): void
}

const lookMs = 250
const chunkBytes = 65_536
/** A file that was passed on is emptied at this size. */
const fullBytes = 8_388_608
const tailBytes = 8_192

export function followOutput({ file, fromEnd, print }: TargetOutputOptions): TargetOutput {
  // Made here when it is missing, with the mode that the target's own opening would give it.
  const descriptor = openSync(file, 'a+', 0o600)
  const buffer = Buffer.alloc(chunkBytes)
  let position = fromEnd ? fstatSync(descriptor).size : 0
  let rest = Buffer.alloc(0)
  let closed = false

  const read = (): number => {
    const count = readSync(descriptor, buffer, 0, chunkBytes, position)
    position += count
    const text = Buffer.concat([rest, buffer.subarray(0, count)])
    const end = text.lastIndexOf(10) + 1
    if (end > 0) print(text.subarray(0, end).toString())
    rest = text.subarray(end)
    return count
  }
  const flush = (): void => {
    if (closed) return
    while (read() === chunkBytes) continue
    if (position < fullBytes) return
    // It is opened for appending, so the target's next line comes to the new end. One that comes just now is lost.
    ftruncateSync(descriptor, 0)
    position = 0
  }
  const timer = setInterval(flush, lookMs)

  return {
    flush,
    lastLines: (count) => {
      const { size } = fstatSync(descriptor)
      const from = Math.max(0, size - tailBytes)
      const tail = Buffer.alloc(size - from)
      readSync(descriptor, tail, 0, tail.length, from)
      return tail
        .toString()
        .split('\n')
        .filter((line) => line.trim() !== '')
        .slice(-count)
    },
    close: () => {
      if (closed) return
      clearInterval(timer)
      flush()
      if (rest.length > 0) print(`${rest.toString()}\n`)
      closed = true
      closeSync(descriptor)
      rmSync(file, { force: true })
    },
  }
}

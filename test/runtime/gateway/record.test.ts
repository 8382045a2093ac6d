import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { createSystemClock } from '../../../src/core/clock.ts'
import { processIdentity } from '../../../src/runtime/gateway/process-identity.ts'
import { createStateFile, type GatewayRecord } from '../../../src/runtime/gateway/record.ts'
import { adoptProcess } from '../../../src/runtime/gateway/target-process.ts'

async function inFolder() {
  const folder = await mkdtemp(path.join(tmpdir(), 'baton-gateway-state-'))
  onTestFinished(() => rm(folder, { recursive: true, force: true }))
  const name = path.join(folder, 'state.json')
  const broken: string[] = []
  return { folder, name, broken, file: createStateFile(name, (aside) => broken.push(aside)) }
}

const record: GatewayRecord = {
  count: 3,
  targets: [
    {
      id: 't3',
      revision: 'three',
      spec: { command: ['x'], directory: '/', environment: { A: 'b' } },
      state: 'current',
      createdAt: 1,
      process: { pid: 2, identity: 'then', port: 3 },
    },
  ],
}

it('reads what it has written, and nobody else can', async () => {
  const { file, folder, name } = await inFolder()
  expect(file.read()).toBeUndefined()
  file.write(record)
  expect(file.read()).toEqual(record)
  expect((await stat(name)).mode & 0o777).toBe(0o600)
  expect(await readdir(folder)).toEqual(['state.json'])
})

it.each([
  '',
  '{"version":1,"targets":[',
  '{"version":99,"targets":[]}',
  '{"version":1}',
  'null',
  '{"version":1,"count":1,"targets":[null]}',
  '{"version":1,"count":1,"targets":[{"id":"t1","process":null}]}',
  '{"version":1,"targets":[]}',
])('sets aside a file that it does not understand: %s', async (text) => {
  const { file, name, broken } = await inFolder()
  await writeFile(name, text)
  expect(file.read()).toBeUndefined()
  expect(broken).toEqual([`${name}.broken`])
  expect(await readFile(`${name}.broken`, 'utf8')).toBe(text)
})

it('knows a process by the time of its start, so that its number in other hands is somebody else', async () => {
  const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1e6)'], { detached: true })
  await once(child, 'spawn')
  const pid = child.pid ?? 0
  onTestFinished(() => void child.kill('SIGKILL'))
  const identity = processIdentity(pid) ?? ''
  expect(identity).not.toBe(processIdentity(process.pid))
  const clock = createSystemClock()
  expect(adoptProcess({ pid, identity: `${identity}0`, port: 1 }, clock)).toBeUndefined()
  const adopted = adoptProcess({ pid, identity, port: 1 }, clock)
  expect(adopted?.running).toBe(true)
  adopted?.signal('SIGKILL')
  await adopted?.exited
  expect(adopted?.running).toBe(false)
  expect(processIdentity(pid)).toBeUndefined()
})

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { atEndOfTest, eventually, freePort } from './processes.ts'

/** A real nginx with WebDAV, in one process, so that a kill ends it as a crash would. */
export interface Nginx {
  /** Of the folder that it serves, `http:`. */
  readonly url: URL
  /** The folder itself. */
  readonly root: string
  kill(): Promise<void>
  start(): Promise<void>
  /** Kills it, and serves an empty folder instead when it is started again. */
  replaceDisk(): Promise<void>
  stop(): Promise<void>
}

const paths = `${process.env['PATH'] ?? ''}:/usr/sbin:/usr/local/sbin`

/** Debian: apt-get install nginx-light. Without it the tests that need it are counted as not run. */
export const hasNginx = ((): boolean => {
  try {
    execFileSync('nginx', ['-v'], { stdio: 'ignore', env: { PATH: paths } })
    return true
  } catch {
    return false
  }
})()

export async function startNginx(): Promise<Nginx> {
  const folder = await mkdtemp(path.join(tmpdir(), 'baton-nginx-'))
  await chmod(folder, 0o755)
  const root = path.join(folder, 'store')
  const port = await freePort()
  await mkdir(path.join(root, 'dav'), { recursive: true })
  await writeFile(path.join(folder, 'nginx.conf'), configuration(folder, root, port))
  let child: ReturnType<typeof spawn> | undefined

  const kill = async (): Promise<void> => {
    if (!child || child.exitCode !== null || child.signalCode !== null) return
    child.kill('SIGKILL')
    await once(child, 'exit')
  }
  const start = async (): Promise<void> => {
    child = spawn('nginx', ['-p', folder, '-c', path.join(folder, 'nginx.conf')], {
      stdio: 'ignore',
      env: { PATH: paths },
    })
    await eventually(() => accepts(port), { timeoutMs: 5_000 })
  }
  const stop = async (): Promise<void> => {
    await kill()
    await rm(folder, { recursive: true, force: true })
  }
  await start()
  atEndOfTest(stop)
  return {
    url: new URL(`http://127.0.0.1:${port}/dav`),
    root: path.join(root, 'dav'),
    kill,
    start,
    stop,
    replaceDisk: async () => {
      await kill()
      await rename(root, path.join(folder, 'unmounted'))
      await mkdir(path.join(root, 'dav'), { recursive: true })
    },
  }
}

async function accepts(port: number): Promise<void> {
  const socket = connect(port, '127.0.0.1')
  await once(socket, 'connect')
  socket.destroy()
}

const configuration = (folder: string, root: string, port: number): string => `
${process.getuid?.() === 0 ? 'user root;' : ''}
daemon off;
master_process off;
pid ${folder}/pid;
error_log ${folder}/error.log;
events { worker_connections 512; }
http {
  access_log off;
  client_max_body_size 0;
  client_body_temp_path ${folder}/incoming;
  ${['proxy', 'fastcgi', 'uwsgi', 'scgi'].map((each) => `${each}_temp_path ${folder}/${each};`).join(' ')}
  server {
    listen 127.0.0.1:${port};
    root ${root};
    location / {
      dav_methods PUT DELETE;
      create_full_put_path on;
      autoindex on;
      autoindex_format json;
    }
  }
}
`

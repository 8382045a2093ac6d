import { DEVICE_NOT_FOUND } from '../../../domain/push/errors.ts'
import type { PushInspection } from '../../../domain/push/inspection.ts'
import { queryOf, textOf } from '../form.ts'
import { type DashboardPage, home } from '../page.ts'
import { type FloodLimit, renderDevice, renderDevices } from './devices-view.ts'

export interface DevicesOptions {
  inspection: Pick<PushInspection, 'devices' | 'device' | 'openOf' | 'list'>
  flood: FloodLimit
}

type ByDevice = { Params: { device: string } }

const active = `${home}/pushes`
const perPage = 50
const shownOfDevice = 20
const closed = ['confirmed', 'expired', 'withdrawn', 'replaced'] as const

/** `/devices`, and `/devices/:device`: how a device is reached, and its latest pushes. */
export function createDevicesPage({ inspection, flood }: DevicesOptions): DashboardPage {
  return {
    register: (server, shell) => {
      server.get('/devices', async (request, reply) => {
        const query = queryOf(request)
        const [user, after] = [textOf(query, 'user'), textOf(query, 'after')]
        const found = await inspection.devices({
          limit: perPage + 1,
          ...(user === undefined ? {} : { user }),
          ...(after === undefined ? {} : { after }),
        })
        const content = renderDevices({
          devices: found.slice(0, perPage),
          more: found.length > perPage,
          user,
          after,
          now: shell.now(),
        })
        return shell.send(request, reply, { title: 'Devices', active, content })
      })
      server.get<ByDevice>('/devices/:device', async (request, reply) => {
        const { device: id } = request.params
        const device = id.includes('\0') ? undefined : await inspection.device(id)
        if (!device) throw DEVICE_NOT_FOUND({ device: id.slice(0, 60) })
        const [open, ended] = await Promise.all([
          inspection.openOf(id, shownOfDevice),
          inspection.list({ device: id, states: closed, limit: shownOfDevice }),
        ])
        const content = renderDevice({ device, open, closed: ended, flood, now: shell.now() })
        return shell.send(request, reply, { title: `Device ${id}`, active, live: true, content })
      })
    },
  }
}

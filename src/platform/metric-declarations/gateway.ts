import type { Declaration } from './declaration.ts'

/** Of the gateway. */
export const gatewayDeclarations = [
  {
    name: 'baton_gateway_requests_total',
    type: 'counter',
    help: 'Requests that the gateway has passed on: over (answered, or ended by a client or target), or why not.',
    labels: ['outcome'],
  },
  {
    name: 'baton_gateway_requests',
    type: 'gauge',
    help: 'Requests under way through the gateway, by the state of their target.',
    labels: ['state'],
  },
  {
    name: 'baton_gateway_streams',
    type: 'gauge',
    help: 'WebSockets and event streams through the gateway, by the state of their target.',
    labels: ['state'],
  },
  {
    name: 'baton_gateway_sessions',
    type: 'gauge',
    help: 'Sessions that were seen within GATEWAY_IDLE_MS, by the state of their target.',
    labels: ['state'],
  },
  {
    name: 'baton_gateway_targets',
    type: 'gauge',
    help: 'Targets of the gateway, by state.',
    labels: ['state'],
  },
  {
    name: 'baton_gateway_sessions_moved_total',
    type: 'counter',
    help: 'Sessions whose target was gone, and that went on with the current one.',
    labels: [],
  },
  {
    name: 'baton_gateway_upgrades_total',
    type: 'counter',
    help: 'Revisions that were started, the first included: done or failed.',
    labels: ['result'],
  },
  {
    name: 'baton_gateway_target_deaths_total',
    type: 'counter',
    help: 'Targets that ended by themselves, by the state in which they were.',
    labels: ['state'],
  },
] as const satisfies readonly Declaration[]

import { answerSeconds, type Declaration } from './declaration.ts'

/** Of pushes, their listens and their providers. */
export const pushDeclarations = [
  {
    name: 'baton_pushes_accepted_total',
    type: 'counter',
    help: 'Pushes that were taken in by this process, by priority or normal.',
    labels: ['priority'],
  },
  {
    name: 'baton_pushes_confirmed_total',
    type: 'counter',
    help: 'Pushes that devices confirmed to this process.',
    labels: [],
  },
  {
    name: 'baton_push_delivery_seconds',
    type: 'histogram',
    help: 'From the acceptance of a push to its first delivery to a listen.',
    labels: [],
    buckets: answerSeconds,
  },
  {
    name: 'baton_push_listens',
    type: 'gauge',
    help: 'Listens that are open in this process.',
    labels: [],
  },
  {
    name: 'baton_cloud_pushes_total',
    type: 'counter',
    help: 'Cloud pushes that were tried, by provider and what came of it: accepted, gone, retry, device-limited, rejected or unsent.',
    labels: ['provider', 'result'],
  },
  {
    name: 'baton_cloud_push_seconds',
    type: 'histogram',
    help: 'How long providers took to answer.',
    labels: ['provider'],
    buckets: answerSeconds,
  },
  {
    name: 'baton_push_lateness_seconds',
    type: 'histogram',
    help: 'From the instant at which a push was due to its claim. Grows when alarms are lost or workers are short.',
    labels: [],
    buckets: answerSeconds,
  },
  {
    name: 'baton_pushes_flood_held_total',
    type: 'counter',
    help: 'Times that a device had due pushes and its flood limit put them off.',
    labels: [],
  },
] as const satisfies readonly Declaration[]

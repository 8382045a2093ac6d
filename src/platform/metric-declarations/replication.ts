import type { Declaration } from './declaration.ts'

/** Of the copying between sites. */
export const replicationDeclarations = [
  {
    name: 'baton_sync_objects_total',
    type: 'counter',
    help: 'Objects that were sent to replicas, by type and what they said: applied, current, mismatch, failed or stale.',
    labels: ['type', 'result'],
  },
  {
    name: 'baton_sync_bytes_total',
    type: 'counter',
    help: 'Characters of content of the objects that were sent to replicas, without parts and bodies.',
    labels: [],
  },
  {
    name: 'baton_sync_pending_changes',
    type: 'gauge',
    help: 'Changes of the whole site that have no position yet. Only on a site that leads.',
    labels: [],
  },
  {
    name: 'baton_sync_lag_changes',
    type: 'gauge',
    help: 'Numbered changes that a replica does not have yet.',
    labels: ['replica'],
  },
  {
    name: 'baton_sync_lag_seconds',
    type: 'gauge',
    help: 'Age of the oldest change, numbered or not, that a replica does not have yet.',
    labels: ['replica'],
  },
  {
    name: 'baton_sync_quarantine',
    type: 'gauge',
    help: 'Objects that a replica went past without them: failed, mismatch, or held by the fuse.',
    labels: ['replica', 'kind'],
  },
  {
    name: 'baton_sync_fuses_open',
    type: 'gauge',
    help: 'Plans of deletes that wait for approval.',
    labels: ['replica'],
  },
  {
    name: 'baton_sync_verify_age_seconds',
    type: 'gauge',
    help: 'Time since the last verification of a replica; absent before the first.',
    labels: ['replica'],
  },
  {
    name: 'baton_sync_verify_differing',
    type: 'gauge',
    help: 'Objects that were not the same on both sides at the last verification.',
    labels: ['replica'],
  },
] as const satisfies readonly Declaration[]

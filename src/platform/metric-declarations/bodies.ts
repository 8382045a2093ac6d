import type { Declaration } from './declaration.ts'

/** Of bodies and their stores. */
export const bodyDeclarations = [
  {
    name: 'baton_bodies_put_total',
    type: 'counter',
    help: 'Bodies that were sent to this process: with two copies, with one, or refused.',
    labels: ['result'],
  },
  {
    name: 'baton_bodies_got_total',
    type: 'counter',
    help: 'Bodies that this process was asked for: sent (begun, after verification) or refused, by error code.',
    labels: ['result'],
  },
  {
    name: 'baton_body_bytes_total',
    type: 'counter',
    help: 'Bytes of bodies that this process took in and sent out.',
    labels: ['direction'],
  },
  {
    name: 'baton_body_bad_copies_total',
    type: 'counter',
    help: 'Copies that were read by a repair or a scrub and were bad or missing, by store.',
    labels: ['store'],
  },
  {
    name: 'baton_body_repairs_total',
    type: 'counter',
    help: 'Bodies whose copies were all read and mended as far as possible: whole, postponed or lost.',
    labels: ['result'],
  },
  {
    name: 'baton_body_store_failures_total',
    type: 'counter',
    help: 'Requests to a store over HTTP that had no answer, or one that says that nobody is there.',
    labels: ['store'],
  },
  {
    name: 'baton_body_store_refusals_total',
    type: 'counter',
    help: 'Requests to a store over HTTP that were not sent, since it was away a moment ago.',
    labels: ['store'],
  },
] as const satisfies readonly Declaration[]

import { sha256 } from '../../core/digest.ts'

/** Longer names would not fit into an index, bytes. */
const maxBytes = 500

/** Whose an object is, as the fuse counts. Kinds keep a user from being taken for a device of the same name. */
export const accountOf = (kind: 'user' | 'device' | 'phone-user', name: string): string =>
  `${kind}:${Buffer.byteLength(name) <= maxBytes ? name : `sha256:${sha256(name)}`}`

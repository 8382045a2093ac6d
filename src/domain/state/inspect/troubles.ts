/**
 * What becomes of it: `note` is harmless, `warning` is moved as it is and worth a look, `held` is not moved and stays
 * where it lies.
 */
export type Severity = 'note' | 'warning' | 'held'

export interface TroubleKind {
  severity: Severity
  /** What was found. */
  about: string
  /** What to do. */
  advice: string
}

const resync = 'Nothing: the phone fetches that folder again, as it would have had to before.'
const look = 'See whether it is worth anything; if not, remove it after the migration.'
const leave = 'Nothing. It stays where it is.'
const broken = `${resync} Keep the file if you want to know how it broke.`

/** Every trouble that a scan can name. The codes are those of the samples, so that they can be compared. */
export const troubleKinds: Record<string, TroubleKind> = {
  'zero-byte-state': held(
    'a state without content: Z-Push reads it as false and sends everything twice',
    broken,
  ),
  'zero-byte-devicedata': held('device data without content: every user of it is new to Z-Push', broken),
  'zero-byte-fd': held('folder data without content', broken),
  'truncated-state': held('a state that ends too early', broken),
  'truncated-devicedata': held('device data that end too early', broken),
  'truncated-fd': held('folder data that end too early', broken),
  'filled-with-nul': held('NUL bytes only: a crash took the content', broken),
  'unknown-class': held(
    'an object of a class that Z-Push does not keep here',
    'Restore it from a backup, or leave it.',
  ),
  'trailing-garbage': warning('bytes after the end of the content; Z-Push ignores them', leave),
  'not-serialized': warning('content that is not in PHP’s format', 'Ask who wrote it: Z-Push did not.'),
  'newer-O-format': warning(
    'written by a Z-Push that uses __serialize(); one that uses Serializable cannot read it',
    'Make sure that the Z-Push that reads the target is the newer one.',
  ),
  'upper-case-device': held('a device id in upper case: Z-Push never looks for it', look),
  'both-cases': held(
    'a device id in upper case beside the same in lower case, which is the one in use',
    look,
  ),
  'unknown-name-bak': held('a name with characters that Z-Push never writes', look),
  'unknown-name-foo': held('a name with an ending that Z-Push never writes', look),
  'unknown-type-xx': held('a type of state that Z-Push does not have', look),
  'uuid-without-counter': held('a state without a counter, which Z-Push never looks for', look),
  'counter-leading-zero': held('a counter with a leading zero, which Z-Push never looks for', look),
  'counter-zero': held('a counter 0, which Z-Push never looks for', look),
  'counter-too-large': held('a counter beyond what can be counted', look),
  'counter-over-int32': held(
    'a counter that the SQL table cannot hold',
    'Migrate to postgres:// instead, or leave it.',
  ),
  'refused-by-target': held('a state that the target cannot hold', 'Choose another target, or leave it.'),
  'duplicate-row': held('an older row of a state that is there twice', leave),
  'foreign-files': note('a file that is none of Z-Push’s', leave),
  'leftover-tmp': note('a temporary file of a write that never ended', 'Remove it.'),
  'counter-gap': note('more counters of a folder than usual', leave),
  'legacy-hc-99999': note('a hierarchy of ActiveSync 1.0', leave),
  'mtime-1970': note('a time of change that cannot be true', leave),
  'fd-points-to-nothing': warning('folder data that name a state which is not there', resync),
  'fd-missing': warning('a folder without folder data', resync),
  'hierarchy-fd-missing': warning(
    'a hierarchy without folder data',
    'Nothing: the phone fetches its folders again, as before.',
  ),
  'missing-devicedata': warning(
    'states of a device without device data',
    'Nothing: the phone starts anew, as before.',
  ),
  'devicedata-only': warning(
    'a device without any other state',
    'Nothing: the phone starts anew, as before.',
  ),
  'ASDevice-upper-id': warning(
    'device data that carry another device id inside',
    'Nothing: the phone starts anew, as before.',
  ),
  'users-lists-ghost': warning('a link to a device without states', leave),
  'users-misses-device': warning(
    'a device whose user is not linked to it',
    'Nothing: the target gets the link.',
  ),
  'long-user-name': held(
    'a user name of more than 50 characters, which the SQL table cannot hold',
    'Migrate to postgres://, or link the user again under a shorter name.',
  ),
  'latin1-user-name': held(
    'a user name that is not UTF-8, which the SQL table cannot hold',
    'Migrate to postgres://, or have the user log in with a UTF-8 name.',
  ),
  'upper-case-user': note('a user name with upper case; z-push-admin compares in lower case', leave),
  'unreadable-0000': held(
    'a file that its owner may not read: Z-Push takes it for false',
    'Give its owner the right to read it, then resume.',
  ),
  'directory-as-state': held('a folder where a state should be', look),
  'dangling-symlink': held('a link to nothing', look),
  'not-a-file': held('something that is no file', look),
  'wrong-folder': held(
    'a file in a folder where Z-Push does not look for it',
    'Move it to <last character>/<last but one>/ of the device id, or remove it.',
  ),
}

function held(about: string, advice: string): TroubleKind {
  return { severity: 'held', about, advice }
}

function warning(about: string, advice: string): TroubleKind {
  return { severity: 'warning', about, advice }
}

function note(about: string, advice: string): TroubleKind {
  return { severity: 'note', about, advice }
}

/** A code that is not in the list is the reason itself, given by a store. */
export const kindOf = (code: string): TroubleKind =>
  troubleKinds[code] ?? { severity: 'held', about: code, advice: 'Choose another target, or leave it.' }

export interface Trouble {
  code: string
  device: string
  /** As it lies in the store, or a user's name. Any bytes. */
  name: Buffer
  size: number
  sha256?: string
  /** keyText, where it is a state with a key. */
  key?: string
}

/** Bytes for people: UTF-8 as it is, what is not printable or not UTF-8 as \xNN. */
export function printable(bytes: Buffer): string {
  const text = bytes.toString()
  const faithful = Buffer.from(text).equals(bytes)
  if (faithful) return text.replaceAll(/[\p{Cc}\\]/gu, escaped)
  return bytes.toString('latin1').replaceAll(/[^\u0020-\u005b\u005d-\u007e]/g, escaped)
}

const escaped = (character: string): string =>
  character === '\\' ? '\\\\' : `\\x${character.charCodeAt(0).toString(16).padStart(2, '0')}`

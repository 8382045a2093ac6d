import { userInfo } from 'node:os'

/** For the audit log: who sat at the terminal, as far as the machine knows. */
export function actorAtTerminal(): string {
  try {
    return `command line: ${userInfo().username}`
  } catch {
    // A container may run under a user id without a name.
    return 'command line'
  }
}

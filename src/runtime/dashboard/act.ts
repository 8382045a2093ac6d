import type { AuditLog, Principal } from '../../platform/access.ts'

/** To be awaited before it is done: what cannot be told of is not done. */
export const recordAct = (
  audit: Pick<AuditLog, 'record'>,
  by: Principal,
  { action, subject }: { action: string; subject: string },
): Promise<void> =>
  audit.record({ actor: by.name, action, subject, details: { key: by.owner, from: 'dashboard' } })

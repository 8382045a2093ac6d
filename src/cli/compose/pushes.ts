import type { Config } from '../../platform/config/config.ts'
import { openGround } from './producer.ts'
import { createPushIntake } from './push.ts'

export type PushIntake = ReturnType<typeof createPushIntake> & {
  now(): number
  confirmMs: number | undefined
}

/** Opens the stores for one command about pushes, and closes them when it is done. */
export async function withPushes<T>(config: Config, work: (pushes: PushIntake) => Promise<T>): Promise<T> {
  const ground = await openGround({ ...config, logLevel: 'error' })
  try {
    const intake = createPushIntake(ground)
    const result = await work({ ...intake, now: () => ground.clock.now(), confirmMs: config.confirmMs })
    await intake.acceptance.idle()
    return result
  } finally {
    await ground.releasers.release()
  }
}

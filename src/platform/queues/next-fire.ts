import { CronExpressionParser } from 'cron-parser'

/** How far is looked ahead when the parser gives up. In few steps: to give up costs it a third of a second. */
const stepMs = 12 * 3_600_000
const steps = 4

/**
 * The first instant after `after` that a cron expression of five fields names, read on the clocks of a time zone.
 *
 * Where these are set forward, a time that does not exist fires at the first one after the gap; where they are set
 * back, a time that exists twice fires once for jobs at fixed hours, and each time for those of every hour.
 *
 * Around the half-hour change of Lord Howe Island (cron-parser 5.10.3) the parser gives up with an error, or leaves a
 * day out. The search then goes on half a day later: one fire may be missing there, the schedule goes on.
 */
export function nextFire(cron: string, timeZone: string, after: Date): Date {
  for (let step = 0; ; step++) {
    const currentDate = new Date(after.getTime() + step * stepMs)
    const expression = CronExpressionParser.parse(cron, { tz: timeZone, currentDate })
    try {
      return expression.next().toDate()
    } catch (error) {
      if (step === steps) throw error
    }
  }
}

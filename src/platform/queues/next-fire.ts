import { CronExpressionParser } from 'cron-parser'

/**
 * The first instant after `after` that a cron expression of five fields names, read on the clocks of a time zone.
 *
 * Where these are set forward, a time that does not exist fires at the first one after the gap; where they are set
 * back, a time that exists twice fires once for jobs at fixed hours, and each time for those of every hour.
 */
export function nextFire(cron: string, timeZone: string, after: Date): Date {
  return CronExpressionParser.parse(cron, { tz: timeZone, currentDate: after }).next().toDate()
}

import { createSystemClock } from '../../core/clock.ts'
import { BatonError, messageOf } from '../../core/errors.ts'
import { type Config, loadConfig } from '../../platform/config/config.ts'
import { createLog } from '../../platform/log.ts'
import type { Cli, RegisterVerb } from '../cli.ts'
import { openDatabase } from '../compose/database.ts'
import { type Finding, fault, ok, warning } from '../doctor/check.ts'
import { checkPostgres } from '../doctor/postgres-checks.ts'
import { checkPushProviders } from '../doctor/push-checks.ts'
import { checkRedis } from '../doctor/redis-checks.ts'
import { loadJobs } from '../load-jobs.ts'

export const registerDoctor: RegisterVerb = (program, cli) => {
  program
    .command('doctor')
    .description(
      'Tells what is wrong with this environment, each with its remedy; exit code 1 on a fault, 78 when it is the configuration.',
    )
    .option('--json', 'print JSON')
    .action(async (options: { json?: boolean }) => {
      const findings = await examine()
      if (options.json) cli.print(JSON.stringify({ findings }, null, 2))
      else show(findings, cli)
      cli.exitCode = exitCodeOf(findings)
    })
}

const configuration = 'Configuration'

/** Of a configuration that no process would start with, the code that each of them ends with. */
function exitCodeOf(findings: Finding[]): number {
  const faults = findings.filter((finding) => finding.state === 'fault')
  if (faults.some((finding) => finding.name === configuration)) return 78
  return faults.length > 0 ? 1 : 0
}

async function examine(): Promise<Finding[]> {
  let config: Config
  try {
    config = loadConfig()
  } catch (error) {
    if (!(error instanceof BatonError)) throw error
    return (error.faults ?? []).map(({ path, message }) =>
      fault(configuration, `${path} ${message}`, 'See docs/configuration.md.'),
    )
  }
  const clock = createSystemClock()
  const findings = [ok(configuration, `complete, ${config.nodeEnv}`), await checkJobs(config)]
  const database = await openDatabase(config, createLog({ level: 'silent', process: 'doctor' }))
  try {
    findings.push(...(await checkPostgres(config, database.url, clock)))
  } finally {
    await database.close()
  }
  if (config.redisUrl) findings.push(...(await checkRedis(config.redisUrl, clock)))
  else findings.push(ok('Redis', 'not used: queues run on Postgres'))
  findings.push(checkBodies(config), ...(await checkPushProviders(config, clock)))
  return findings
}

async function checkJobs(config: Config): Promise<Finding> {
  try {
    const registry = await loadJobs(config.jobsModule)
    const names = registry.jobs.map((job) => job.name)
    return ok('Jobs', `${names.length} defined: ${names.join(', ')}`)
  } catch (error) {
    return fault('Jobs', messageOf(error), 'Mend the file; nothing runs without it.')
  }
}

/** Looks at the configuration alone: `baton bodies status` looks at the stores. */
function checkBodies({ bodyStores, nodeEnv }: Config): Finding {
  if (bodyStores.length > 0) return ok('Bodies', `${bodyStores.length} stores; see \`baton bodies status\``)
  const found = 'two directories under .baton/ of this machine'
  if (nodeEnv !== 'production') return ok('Bodies', found)
  const remedy = 'Set BODY_STORES to stores that every node reaches, and that outlive this machine.'
  return warning('Bodies', found, remedy)
}

const signs = { ok: 'ok     ', warning: 'WARNING', fault: 'FAULT  ' }

function show(findings: Finding[], cli: Cli): void {
  for (const finding of findings) {
    cli.print(`${signs[finding.state]}  ${finding.name}: ${finding.found}`)
    if (finding.remedy) cli.print(`         → ${finding.remedy}`)
  }
}

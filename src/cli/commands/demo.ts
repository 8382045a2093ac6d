import { createSystemClock } from '../../core/clock.ts'
import { loadConfig } from '../../platform/config/config.ts'
import { handleStopSignals } from '../../platform/processes/signals.ts'
import type { RegisterVerb } from '../cli.ts'

export const registerDemo: RegisterVerb = (program, cli) => {
  program
    .command('demo')
    .description('Plays the main scenarios with real processes on real input, a line per promise kept.')
    .option('--keep', 'leave everything running afterwards')
    .action(async (options: { keep?: boolean }) => {
      const { runDemo } = await import('../demo/demo.ts')
      let stop = (): void => undefined
      const stopped = new Promise<void>((resolve) => {
        stop = resolve
      })
      handleStopSignals(
        { clock: createSystemClock(), terminal: false },
        { stop, fast: () => undefined, ignored: () => undefined },
      )
      const held = await runDemo({
        config: loadConfig(),
        keep: options.keep === true,
        print: (line) => cli.print(line),
        stopped,
      })
      if (!held) cli.exitCode = 1
    })
}

#!/usr/bin/env node
import { enableCompileCache } from 'node:module'
import { fileURLToPath } from 'node:url'
import { noteSignals } from './platform/processes/signals.ts'

// Before anything slow is loaded: a platform may signal a child of the worker while it boots.
if (process.argv[2] === 'worker-child') noteSignals(() => undefined)
// Halves the boot, and with it the time that a killed child's place is empty: nothing is compiled twice.
enableCompileCache(fileURLToPath(new URL('../node_modules/.cache/baton', import.meta.url)))
const { runCli } = await import('./cli/cli.ts')
process.exitCode = await runCli(process.argv.slice(2))
// What a failed start has opened would otherwise keep the process alive.
if (process.exitCode !== 0) process.exit()

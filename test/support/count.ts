import { readFileSync } from 'node:fs'

// Prints the last line of scripts/test from vitest's JSON report, and ends with the exit code of the whole.
// Arguments: the report, the exit code of the checks, the exit code of vitest.

interface Report {
  numPassedTests: number
  numFailedTests: number
  numPendingTests: number
  numTodoTests: number
  testResults: { name: string; status: string; assertionResults: { status: string }[] }[]
}

const [file = '', checks = '1', tests = '1'] = process.argv.slice(2)
const empty: Report = {
  numPassedTests: 0,
  numFailedTests: 0,
  numPendingTests: 0,
  numTodoTests: 0,
  testResults: [],
}
const report = read()

// A file that fails as a whole (it cannot be loaded, a hook throws, it leaks) has no failed test to count.
const brokenFiles = report.testResults.filter(
  ({ status, assertionResults }) =>
    status === 'failed' && !assertionResults.some((each) => each.status === 'failed'),
).length
const counted = report.numFailedTests + brokenFiles
// What vitest finds fault with beyond any file, such as an unhandled rejection.
const failed = counted === 0 && tests !== '0' ? 1 : counted
const skipped = report.numPendingTests + report.numTodoTests

if (checks !== '0') console.log('The checks failed: see the lines that begin with "check:" above.')
if (skipped > 0) console.log(`${skipped} not run`)
console.log(`${report.numPassedTests} passed, ${failed} failed`)
process.exitCode = checks === '0' && tests === '0' && failed === 0 && report.numPassedTests > 0 ? 0 : 1

function read(): Report {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Report
  } catch {
    return empty
  }
}

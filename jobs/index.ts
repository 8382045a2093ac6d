import { bodyJobs } from './bodies.ts'
import { importTable } from './import.ts'
import { photo } from './photo.ts'
import { report } from './report.ts'
import { stateMigration } from './state-migration.ts'

/** Every job of the project. Add yours. */
export const jobs = [importTable, photo, report, stateMigration, ...bodyJobs]

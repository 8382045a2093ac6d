import { defineError } from '../../core/errors.ts'

export const CONFIG_INVALID = defineError('CONFIG_INVALID', 'The environment is not usable:{lines}', {
  status: 500,
  retry: 'never',
  report: true,
})

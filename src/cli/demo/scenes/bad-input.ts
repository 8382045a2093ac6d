import type { Scene } from '../stage.ts'

/** What a caller who errs is told. */
export const badInput: Scene = {
  title: 'Bad input gets a clear answer and loses nothing',
  async play(stage) {
    const refusal = async (name: string, payload: unknown): Promise<string> => {
      try {
        await stage.client.call('POST', '/v1/jobs', { name, payload })
        return 'it was accepted'
      } catch (error) {
        return error instanceof Error ? error.message : String(error)
      }
    }
    const unknown = await refusal('no-such-job', {})
    stage.promise(
      'an unknown job: 404 JOB_UNKNOWN',
      unknown.includes('404') && unknown.includes('JOB_UNKNOWN'),
    )
    const wrong = await refusal('photo', { body: 7, widths: ['wide'] })
    stage.promise(
      'a payload that does not fit: 400 with each fault by its path',
      wrong.includes('/body') && wrong.includes('/widths/0'),
    )
  },
}

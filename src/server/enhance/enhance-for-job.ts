import type { LoadProgress } from '../../engine/messages.js';
import { InferenceError } from '../../errors.js';
import { type ModelLoading, Phase } from '../../gen/darkroom/v1/event.js';
import { hideInternals } from '../../rpc/status.js';
import type { GenerateJob } from '../jobs/generate-job.js';
import type { EnhancementOptions, EnhancementOutcome } from './enhancement.js';

/**
 * Enhances the prompt of a waiting job. If anything fails, the job runs on its original prompt.
 * @throws InferenceError the signal's reason; POLICY if the enhanced prompt is refused
 */
export async function enhanceForJob(
  job: GenerateJob,
  signal: AbortSignal,
  { enhancer, defaults, timeoutMs, log }: EnhancementOptions,
): Promise<EnhancementOutcome> {
  if (enhancer === undefined) {
    return { strategy: 'fallback', problem: 'this server has no language model; it is started with --qwen PATH' };
  }
  const late = new AbortController();
  const timer = setTimeout(() => {
    const problem = `the prompt was not enhanced within ${timeoutMs} ms of the job's acceptance (ENHANCE_TIMEOUT_MS)`;
    late.abort(new InferenceError('DEADLINE_EXCEEDED', problem));
  }, timeoutMs);
  const tell = (step: number) =>
    job.emit({
      $case: 'progress',
      value: { phase: Phase.PHASE_ENHANCE, step, total: 1, fraction: 0, etaSeconds: undefined },
    });
  try {
    // The enhancement uses the job's seed, so that a job with a seed can be repeated.
    const [seed = 0] = job.request.seeds;
    const { maxTokens, temperature, topP } = defaults;
    const request = { prompt: job.request.prompt, maxTokens, temperature, topP, seed: defaults.seed ?? seed };
    const enhanced = await enhancer.enhance(job, request, AbortSignal.any([signal, late.signal]), {
      // The position among prompts is not the position among jobs, so it is not emitted.
      onPosition: () => undefined,
      onLoading: (progress) => job.emit({ $case: 'modelLoading', value: loadingEvent(enhancer.model, progress) }),
      onStarted: () => tell(0),
      onText: (text) => job.emit({ $case: 'textDelta', value: { text } }),
    });
    tell(1);
    return { strategy: 'qwen', ...enhanced };
  } catch (caught) {
    const error = hideInternals(InferenceError.from(caught), log);
    if (signal.aborted || error.reason === 'POLICY') throw error;
    log.warn({ jobId: job.id, reason: error.reason }, 'prompt was not enhanced');
    return { strategy: 'fallback', problem: error.message };
  } finally {
    clearTimeout(timer);
  }
}

/** Event for a model that converts, loads or waits for memory. */
export function loadingEvent(model: string, progress?: LoadProgress): ModelLoading {
  return { model, fraction: progress?.fraction, converting: progress?.stage === 'converting', loras: [] };
}

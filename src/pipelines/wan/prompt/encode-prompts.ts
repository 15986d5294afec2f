import { isEverGuided } from '../../common/guidance.js';
import type { RunningJobs } from '../../common/running-jobs.js';
import type { GenerationRequest, PipelineEvent } from '../../pipeline.js';
import type { PromptCache } from './prompt-cache.js';
import type { EncodedPrompt } from './prompt-encoder.js';

/** The text that the transformer is conditioned on: one or, with guidance, two states [T, C], the negative one first. */
export type Texts = readonly Float32Array[];

/**
 * Encodes a request's prompts and reports how they were read.
 * @returns undefined when the job ended meanwhile
 */
export async function* encodePrompts(
  job: number,
  request: GenerationRequest,
  running: RunningJobs,
  prompts: PromptCache,
): AsyncGenerator<PipelineEvent, Texts | undefined, undefined> {
  const { prompt, negativePrompt = '' } = request;
  const texts = isEverGuided(request) ? [negativePrompt, prompt] : [prompt];
  const unseen = new Set(texts.filter((text) => !prompts.isCached(text)));
  const total = unseen.size;
  const cache = { hits: texts.length - total, misses: total };
  const encoded: EncodedPrompt[] = [];
  try {
    for (const text of texts) {
      yield* running.checkCancelled();
      if (!running.isAlive(job)) break;
      encoded.push(await prompts.encode(text, running.signalOf(job)));
      if (unseen.delete(text)) yield running.advance(job, 'encode', 1, total);
    }
  } finally {
    await prompts.releaseIfIdle();
  }
  const positive = encoded.at(-1);
  if (positive === undefined || encoded.length < texts.length) return undefined;
  const { ids, length } = positive;
  // The end token is not part of the prompt.
  const report = { chunks: 1, tokens: length - 1, dropped: length - ids.length, strategy: 'none' } as const;
  yield { job, kind: 'prompt', report, cache };
  return encoded.map(({ states }) => states);
}

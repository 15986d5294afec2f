import type { RunningJobs } from '../../common/running-jobs.js';
import type { GenerationRequest, PipelineEvent, PromptReport } from '../../pipeline.js';
import type { PromptCache } from './prompt-cache.js';
import type { PromptEmbeds } from './prompt-encoder.js';

/** The text that the UNet is conditioned on: one row, or with guidance two, the negative one first. */
export interface Conditioning {
  /** All of the same length. */
  readonly rows: readonly PromptEmbeds[];
}

/**
 * Encodes a request's prompts and reports how they were read.
 * @param forcesZeros the checkpoint takes zeros for a negative prompt that was not given
 * @returns undefined when the job ended meanwhile
 */
export async function* encodePrompts(
  job: number,
  request: GenerationRequest,
  running: RunningJobs,
  prompts: PromptCache,
  forcesZeros: boolean,
): AsyncGenerator<PipelineEvent, Conditioning | undefined, undefined> {
  const { negativePrompt, guidanceScale, promptSyntax: syntax = 'diffusers', embeddings = [] } = request;
  const { encoder } = prompts;
  const guided = guidanceScale > 1;
  const zeroNegative = negativePrompt === undefined && forcesZeros;
  const prompt = withWeights(request);
  const texts = guided && !zeroNegative ? [negativePrompt ?? '', prompt] : [prompt];
  const unseen = new Set(texts.filter((text) => !prompts.isCached(text, syntax, embeddings)));
  const total = unseen.size;
  const cache = { hits: texts.length - total, misses: total };
  const encoded: PromptEmbeds[] = [];
  for (const text of texts) {
    yield* running.checkCancelled();
    if (!running.isAlive(job)) return undefined;
    encoded.push(await prompts.encode(text, syntax, embeddings));
    if (unseen.delete(text)) yield running.advance(job, 'encode', 1, total);
  }
  const positive = await withoutBadWeights(request, encoded.pop(), prompts);
  const [negative] = encoded;
  yield { job, kind: 'prompt', report: reportOf(positive, negative), cache };
  const rows = [...(zeroNegative && guided ? [encoder.zeros(positive.tokens)] : encoded), positive];
  return { rows: await encoder.padToSameLength(rows) };
}

/** Leaves out weights that cannot be read: the prompt alone conditions the image. */
async function withoutBadWeights(
  { prompt, weights, embeddings }: GenerationRequest,
  encoded: PromptEmbeds | undefined,
  prompts: PromptCache,
): Promise<PromptEmbeds> {
  if (encoded === undefined) throw new Error('a request without a prompt');
  const { problem } = encoded.report;
  if (problem === undefined || !weights) return encoded;
  const plain = await prompts.encode(prompt, 'plain', embeddings);
  return { ...plain, report: { ...plain.report, strategy: 'fallback', problem } };
}

/** The prompt with its weighted phrases behind it. */
function withWeights({ prompt, weights }: GenerationRequest): string {
  return [prompt, weights].filter(Boolean).join(', ');
}

/** The prompt's report, which also names a problem of the negative prompt's weights. */
function reportOf({ report }: PromptEmbeds, negative: PromptEmbeds | undefined): PromptReport {
  const problem = negative?.report.problem;
  if (problem === undefined || report.problem !== undefined) return report;
  return { ...report, strategy: 'fallback', problem: `negative prompt: ${problem}` };
}

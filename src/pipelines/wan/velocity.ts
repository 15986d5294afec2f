import { join32 } from '../../std/concat-float32.js';
import type { MemoryRelief } from '../common/memory-relief.js';
import type { GenerationRequest } from '../pipeline.js';
import type { Condition } from './conditioning/condition-feeds.js';
import type { Denoiser, KeptRun, TransformerCall } from './denoiser.js';
import { guideRows, skippedLayers, textOf } from './guided-rows.js';
import type { VideoSize } from './model/latents.js';
import type { Texts } from './prompt/encode-prompts.js';
import { type PlannedStep, planSteps } from './step-plan.js';

/** The inputs that all steps of one video share. */
export interface VideoLoop {
  readonly request: GenerationRequest;
  readonly texts: Texts;
  /** In latents. */
  readonly size: VideoSize;
  readonly timesteps: readonly number[];
  /** Noise levels of the steps. */
  readonly sigmas: readonly number[];
  readonly condition: Condition | undefined;
  readonly signal: AbortSignal;
  readonly relief: MemoryRelief;
}

/** The guided velocity at each step of one video, by as many runs of the transformer as the request wants. */
export class Velocity {
  readonly #denoiser: Denoiser;
  readonly #loop: VideoLoop;
  readonly #plan: readonly PlannedStep[];
  /** Only kept where a later step may reuse it. */
  #kept: KeptRun | undefined;

  private constructor(denoiser: Denoiser, loop: VideoLoop, plan: readonly PlannedStep[]) {
    this.#denoiser = denoiser;
    this.#loop = loop;
    this.#plan = plan;
  }

  static async plan(denoiser: Denoiser, loop: VideoLoop): Promise<Velocity> {
    const { request, timesteps } = loop;
    const reuses = (request.video?.reuseThreshold ?? 0) > 0;
    const embeddings = reuses ? await denoiser.timeEmbeddings(timesteps) : undefined;
    return new Velocity(denoiser, loop, planSteps(request, embeddings));
  }

  /** Called for each step in order. `forwards`: runs of the blocks over one text that the step took. */
  async at(step: number, latents: Float32Array): Promise<{ flow: Float32Array; forwards: number }> {
    const { request, size, timesteps, sigmas, condition, signal, relief, ...loop } = this.#loop;
    const { rows = [], isReused = false } = this.#plan[step] ?? {};
    const texts = rows.map((row) => textOf(row, loop.texts));
    const skips = rows.map((row) => skippedLayers(row, request));
    const inputs = join32(texts.map(() => latents));
    const call = { latents: inputs, size, timestep: timesteps[step] ?? 0, texts, skips, condition, signal };
    const keeps = this.#plan[step + 1]?.isReused ?? false;
    const attempts = [
      { run: () => this.#run(call, keeps) },
      { measure: 'denoised_1_at_once', run: () => this.#run({ ...call, oneByOne: true }, keeps) },
    ];
    const flow = isReused
      ? await this.#reuse(call)
      : await relief.shrink(`denoise ${texts.length}`, texts.length === 1 ? attempts.slice(0, 1) : attempts);
    const sample = { input: latents, sigma: sigmas[step] ?? 1, prediction: 'flow' } as const;
    const channels = latents.length / (size.frames * size.height * size.width);
    const guided = guideRows(rows, flow, request, sample, channels);
    return { flow: guided, forwards: isReused ? 0 : texts.length };
  }

  async #run(call: TransformerCall, keeps: boolean): Promise<Float32Array> {
    // Dropped before the run: otherwise two would be in memory.
    this.#kept = undefined;
    if (!keeps) return this.#denoiser.predict(call);
    const { flow, kept } = await this.#denoiser.predictAndKeep(call);
    this.#kept = kept;
    return flow;
  }

  #reuse(call: TransformerCall): Promise<Float32Array> {
    if (this.#kept === undefined) throw new Error('a step reuses a run that was not kept');
    return this.#denoiser.predictFrom(lastRows(this.#kept, call.latents.length), call);
  }
}

/** The last rows of a run, where fewer are wanted than it had. */
function lastRows({ latents, hidden }: KeptRun, length: number): KeptRun {
  const share = length / latents.length;
  return { latents: latents.subarray(-length), hidden: hidden.subarray(-hidden.length * share) };
}

import { join32 } from '../../std/concat-float32.js';
import { guide } from '../common/guidance.js';
import type { GenerationRequest } from '../pipeline.js';
import type { Condition } from './conditioning/condition-feeds.js';
import type { ClipSize, KeptRun, WanNetworks } from './networks.js';
import { type PlannedStep, planSteps } from './step-plan.js';

/** What the transformer is told of the text: one or, with guidance, two states [T, C], the negative one first. */
export type Texts = readonly Float32Array[];

/** What a clip's steps are: of one job, for the length of its loop. */
export interface ClipLoop {
  readonly request: GenerationRequest;
  readonly texts: Texts;
  /** In latents. */
  readonly size: ClipSize;
  readonly timesteps: readonly number[];
  readonly condition: Condition | undefined;
}

/** The guided velocity at each step of one clip, by as many runs of the transformer as the request wants. */
export class Velocity {
  readonly #networks: WanNetworks;
  readonly #loop: ClipLoop;
  readonly #plan: readonly PlannedStep[];
  /** Only held where a later step may reuse it. */
  #kept: KeptRun | undefined;

  private constructor(networks: WanNetworks, loop: ClipLoop, plan: readonly PlannedStep[]) {
    this.#networks = networks;
    this.#loop = loop;
    this.#plan = plan;
  }

  static async plan(networks: WanNetworks, loop: ClipLoop): Promise<Velocity> {
    const { request, timesteps } = loop;
    const reuses = (request.clip?.reuseThreshold ?? 0) > 0;
    const embeddings = reuses ? await networks.timeEmbeddings(timesteps) : undefined;
    return new Velocity(networks, loop, planSteps(request, embeddings));
  }

  /** Steps are asked for in order. `forwards`: runs of the blocks that it took, over one text each. */
  async at(step: number, latents: Float32Array): Promise<{ flow: Float32Array; forwards: number }> {
    const { request, size, timesteps, condition, ...loop } = this.#loop;
    const { isGuided = false, isReused = false } = this.#plan[step] ?? {};
    const texts = isGuided ? loop.texts : loop.texts.slice(-1);
    const inputs = join32(texts.map(() => latents));
    const call = { latents: inputs, size, timestep: timesteps[step] ?? 0, texts, condition };
    const flow = isReused ? await this.#reuse(call) : await this.#run(call, this.#plan[step + 1]?.isReused ?? false);
    return {
      flow: texts.length === 1 ? flow : guide(flow, request.guidanceScale),
      forwards: isReused ? 0 : texts.length,
    };
  }

  async #run(call: Parameters<WanNetworks['predict']>[0], keeps: boolean): Promise<Float32Array> {
    // Given back before the run: the next one would be there beside it.
    this.#kept = undefined;
    if (!keeps) return this.#networks.predict(call);
    const { flow, kept } = await this.#networks.predictAndKeep(call);
    this.#kept = kept;
    return flow;
  }

  #reuse(call: Parameters<WanNetworks['predictFrom']>[1]): Promise<Float32Array> {
    if (this.#kept === undefined) throw new Error('a step reuses a run that was not kept');
    return this.#networks.predictFrom(lastRows(this.#kept, call.latents.length), call);
  }
}

/** Of a guided run's halves, the prompt's own where only one is wanted. */
function lastRows({ latents, hidden }: KeptRun, length: number): KeptRun {
  const share = length / latents.length;
  return { latents: latents.subarray(-length), hidden: hidden.subarray(-hidden.length * share) };
}

import type { GenerationRequest } from '../../pipelines/pipeline.js';
import type { EnhancementOutcome } from '../enhance/enhancement.js';
import type { JobPlan } from '../request/resolve.js';
import { Job, type NewJob } from './job.js';

/** What a job got before it could run. */
export interface Preparation {
  /** Its references. */
  readonly references?: Pick<GenerationRequest, 'init' | 'clip'> | undefined;
  /** What became of its prompt. */
  readonly enhancement?: EnhancementOutcome | undefined;
}

export interface NewGenerateJob extends NewJob {
  readonly plan: JobPlan;
  /** Gets what is needed before it can run. Omitted: nothing is. */
  readonly prepare?: ((job: GenerateJob) => Promise<Preparation>) | undefined;
}

/** A job that makes pictures or a clip. */
export class GenerateJob extends Job {
  readonly plan: JobPlan;
  readonly #prepare: NewGenerateJob['prepare'];
  #request: GenerationRequest;
  #enhancement: EnhancementOutcome | undefined;

  constructor({ plan, prepare, ...basics }: NewGenerateJob) {
    super(basics);
    this.plan = plan;
    this.#request = plan.request;
    this.#prepare = prepare;
  }

  /** What the engine is to do; its reference and its enhanced prompt are there once the job is prepared. */
  get request(): GenerationRequest {
    return this.#request;
  }

  /** What became of the prompt; undefined where no enhancement was asked for. */
  get enhancement(): EnhancementOutcome | undefined {
    return this.#enhancement;
  }

  get needsPreparation(): boolean {
    return this.#prepare !== undefined;
  }

  /** @throws InferenceError of the reference, or POLICY of the enhanced prompt */
  async prepare(): Promise<void> {
    const { references, enhancement } = (await this.#prepare?.(this)) ?? {};
    this.#enhancement = enhancement;
    this.#request = {
      ...this.#request,
      ...references,
      ...(enhancement?.strategy === 'qwen' && { prompt: enhancement.prompt }),
    };
  }
}

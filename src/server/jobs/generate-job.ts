import type { GenerationRequest, RequestControlVideo } from '../../pipelines/pipeline.js';
import type { EnhancementOutcome } from '../enhance/enhancement.js';
import type { JobPlan } from '../request/resolve.js';
import { Job, type NewJob } from './job.js';

/** Results of preparing a job. */
export interface Preparation {
  /** Decoded references. */
  readonly references?: Pick<GenerationRequest, 'init' | 'imagePrompt' | 'video' | 'controls'> | undefined;
  /** The enhanced prompt, or the reason why there is none. */
  readonly enhancement?: EnhancementOutcome | undefined;
}

export interface NewGenerateJob extends NewJob {
  readonly plan: JobPlan;
  /** Jobs of different keys take turns. Default: the owner. */
  readonly turnKey?: string | undefined;
  /** Prepares the job. Omitted: it can run at once. */
  readonly prepare?: ((job: GenerateJob) => Promise<Preparation>) | undefined;
}

/** A job that generates images or a video. */
export class GenerateJob extends Job {
  readonly turnKey: string;
  #plan: JobPlan;
  #prepare: NewGenerateJob['prepare'];
  #request: GenerationRequest;
  #enhancement: EnhancementOutcome | undefined;

  constructor({ plan, prepare, turnKey, ...basics }: NewGenerateJob) {
    super(basics);
    this.turnKey = turnKey ?? basics.owner;
    this.#plan = plan;
    this.#request = plan.request;
    this.#prepare = prepare;
  }

  get plan(): JobPlan {
    return this.#plan;
  }

  /** The request that the engine runs. References and the enhanced prompt are part of it after `prepare`. */
  get request(): GenerationRequest {
    return this.#request;
  }

  /** Result of enhancing the prompt; undefined if the job type has no enhancement. */
  get enhancement(): EnhancementOutcome | undefined {
    return this.#enhancement;
  }

  override get inputBytes(): number {
    return imageBytes(this.plan, this.#request) + 2 * textLength(this.#request);
  }

  override releaseInputs(): void {
    const { init, imagePrompt, video, controls, ...request } = this.#request;
    this.#request = {
      ...request,
      ...(video && { video: { ...video, known: undefined, control: withoutFile(video.control) } }),
      ...(controls && { controls: controls.map((control) => ({ ...control, rgb: new Uint8Array() })) }),
    };
    this.#plan = { ...this.#plan, references: undefined, controls: [], controlVideo: undefined };
    this.#prepare = undefined;
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

function withoutFile(control: RequestControlVideo | undefined): RequestControlVideo | undefined {
  return control && { ...control, file: new Uint8Array() };
}

/** Bytes of the references as they came, and of the images that they were decoded to. */
function imageBytes({ references, controls, controlVideo }: JobPlan, request: GenerationRequest): number {
  const { init, imagePrompt, video, controls: decoded = [] } = request;
  const own = [references?.start, references?.end, references?.look, references?.mask?.source];
  const sources = [...own, ...controls.map(({ source }) => source), controlVideo?.source].map((source) =>
    source?.kind === 'bytes' ? source.bytes.length : 0,
  );
  const { start, end, look } = video?.known ?? {};
  // A file that came as bytes is the same one.
  const isFetched = controlVideo?.source.kind === 'url';
  const all = [
    isFetched ? video?.control?.file : undefined,
    init?.rgb,
    init?.mask,
    imagePrompt?.rgb,
    start,
    end,
    look,
    ...decoded.map(({ rgb }) => rgb),
  ];
  const images = all.map((rgb) => rgb?.length ?? 0);
  return [...sources, ...images].reduce((sum, bytes) => sum + bytes, 0);
}

function textLength({ prompt, negativePrompt = '', weights = '' }: GenerationRequest): number {
  return prompt.length + negativePrompt.length + weights.length;
}

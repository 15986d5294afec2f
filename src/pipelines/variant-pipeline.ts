import { setImmediate as nextTurn } from 'node:timers/promises';
import { InferenceError } from '../errors.js';
import { variantKey } from './batching.js';
import type { LoraSource } from './lora/read-lora.js';
import type { BuiltVariants, Device, ModelInfo, Pipeline, PipelineEvent, PipelineJob } from './pipeline.js';

/** A pipeline that can build itself anew with LoRAs folded into its weights. */
export interface LoraPipeline extends Pipeline {
  withLoras(loras: readonly LoraSource[]): Promise<LoraPipeline>;
}

/**
 * A model and its variants with LoRAs: the bare model is always there, variants are built when a job needs one and kept until
 * others need their room.
 */
export class VariantPipeline implements Pipeline {
  readonly #base: LoraPipeline;
  readonly #limit: number;
  /** By key, the one used last at the end. */
  readonly #variants = new Map<string, LoraPipeline>();
  #builds = 0;

  /** @param limit variants that are kept beside the bare model, at least 1 */
  constructor(base: LoraPipeline, limit: number) {
    this.#base = base;
    this.#limit = limit;
  }

  get info(): ModelInfo {
    return this.#base.info;
  }

  get device(): Exclude<Device, 'auto'> {
    return this.#base.device;
  }

  get variants(): BuiltVariants {
    return { keys: [...this.#variants.keys()], builds: this.#builds };
  }

  /** All jobs need the same variant. */
  async *generate(jobs: readonly PipelineJob[]): AsyncGenerator<PipelineEvent, void, undefined> {
    const [first] = jobs;
    if (first === undefined) return;
    const key = variantKey(first.request);
    const known = key === '' ? this.#base : this.#variants.get(key);
    if (known === undefined) {
      for (const job of jobs.keys()) yield { job, kind: 'building' };
      // The event leaves before the thread is blocked.
      await nextTurn();
    }
    const pipeline = known ?? (await this.#build(first.request.loras ?? []));
    this.#variants.delete(key);
    if (key !== '') this.#variants.set(key, pipeline);
    yield* pipeline.generate(jobs);
  }

  async dispose(): Promise<void> {
    for (const variant of this.#variants.values()) await variant.dispose();
    await this.#base.dispose();
  }

  async #build(loras: readonly LoraSource[]): Promise<LoraPipeline> {
    this.#builds += 1;
    while (this.#variants.size >= this.#limit) await this.#forgetOldest();
    try {
      return await this.#base.withLoras(loras);
    } catch (error) {
      // What is wrong with a file stays wrong; what the runtime fails with may be that there is no room beside the others.
      if (error instanceof InferenceError || this.#variants.size === 0) throw error;
      while (this.#variants.size > 0) await this.#forgetOldest();
      return this.#base.withLoras(loras);
    }
  }

  async #forgetOldest(): Promise<void> {
    for (const [key, variant] of this.#variants) {
      this.#variants.delete(key);
      await variant.dispose();
      return;
    }
  }
}

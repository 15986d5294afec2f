import { setImmediate as nextTurn } from 'node:timers/promises';
import { InferenceError } from '../errors.js';
import type { Backend } from '../runtime/backend.js';
import { formatBytes } from '../std/format-bytes.js';
import { variantKey } from './common/batching.js';
import type { LoraSource } from './lora/read-lora.js';
import type { BuiltVariants, ModelInfo, Pipeline, PipelineEvent, PipelineJob } from './pipeline.js';

/** A pipeline that can build itself anew with LoRAs folded into its weights. */
export interface LoraPipeline extends Pipeline {
  withLoras(loras: readonly LoraSource[]): Promise<LoraPipeline>;
  /** What a variant takes at most, in bytes of the device's memory. */
  readonly variantBytes: number;
}

export function canTakeLoras(pipeline: Pipeline): pipeline is LoraPipeline {
  return 'withLoras' in pipeline;
}

export interface VariantLimits {
  /** Variants that are kept beside the bare model, at least 1. */
  readonly count: number;
  /** Memory that a variant may take now. */
  readonly freeBytes: () => Promise<number>;
}

/**
 * A model and its variants with LoRAs: the bare model is always there, variants are built when a job needs one and kept until
 * others need their room.
 */
export class VariantPipeline implements Pipeline {
  readonly #base: LoraPipeline;
  readonly #limits: VariantLimits;
  /** By key, the one used last at the end. */
  readonly #variants = new Map<string, LoraPipeline>();
  #builds = 0;

  constructor(base: LoraPipeline, limits: VariantLimits) {
    this.#base = base;
    this.#limits = limits;
  }

  get info(): ModelInfo {
    return this.#base.info;
  }

  get backend(): Backend {
    return this.#base.backend;
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

  /** @throws InferenceError OUT_OF_MEMORY where there is no room even without the other variants */
  async #build(loras: readonly LoraSource[]): Promise<LoraPipeline> {
    while (this.#variants.size >= this.#limits.count) await this.#forgetOldest();
    await this.#makeRoom();
    this.#builds += 1;
    try {
      return await this.#base.withLoras(loras);
    } catch (error) {
      // What is wrong with a file stays wrong; what the runtime fails with may be that there is no room beside the others.
      if (error instanceof InferenceError || this.#variants.size === 0) throw error;
      while (this.#variants.size > 0) await this.#forgetOldest();
      return this.#base.withLoras(loras);
    }
  }

  async #makeRoom(): Promise<void> {
    const { variantBytes } = this.#base;
    for (;;) {
      const freeBytes = await this.#limits.freeBytes();
      if (freeBytes >= variantBytes) return;
      if (this.#variants.size === 0) {
        throw new InferenceError(
          'OUT_OF_MEMORY',
          `Insufficient VRAM for generation: the model with these LoRAs needs up to ${formatBytes(variantBytes)} beside the bare one, ${formatBytes(freeBytes)} are free; lower MEMORY_RESERVE_BYTES, or leave the LoRAs out`,
        );
      }
      await this.#forgetOldest();
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

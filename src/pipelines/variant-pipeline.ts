import { setImmediate as nextTurn } from 'node:timers/promises';
import { InferenceError } from '../errors.js';
import type { Backend } from '../runtime/backend.js';
import { formatBytes } from '../std/format-bytes.js';
import { LruMap } from '../std/lru-map.js';
import { variantKey } from './common/batching.js';
import type { MemoryRelief } from './common/memory-relief.js';
import type { LoraSource } from './lora/read-lora.js';
import type { ModelMemory } from './model-memory.js';
import type { BuiltVariants, ModelInfo, Pipeline, PipelineEvent, PipelineJob } from './pipeline.js';

/** A pipeline that can build a variant of itself, with LoRAs folded into its weights. */
export interface LoraPipeline extends Pipeline {
  withLoras(loras: readonly LoraSource[]): Promise<LoraPipeline>;
  /** Bytes of the device's memory that a variant takes at most. */
  readonly variantBytes: number;
}

export function canTakeLoras(pipeline: Pipeline): pipeline is LoraPipeline {
  return 'withLoras' in pipeline;
}

export interface VariantLimits {
  /** Variants that are kept beside the bare model, at least 1. */
  readonly count: number;
  /** Measures the bytes of memory that a variant may take now. */
  readonly freeBytes: () => Promise<number>;
  /** Idle variants are dropped when memory runs out. Omitted: only for the room of another variant. */
  readonly relief?: MemoryRelief | undefined;
}

/**
 * A model and its variants with LoRAs. The bare model stays loaded; a variant is built when a job needs it and kept until others
 * need its room.
 */
export class VariantPipeline implements Pipeline {
  readonly #base: LoraPipeline;
  readonly #limits: VariantLimits;
  /** By key. Its entries are taken out before others are built, as a variant must be disposed of first. */
  readonly #variants = new LruMap<string, LoraPipeline>(Number.POSITIVE_INFINITY);
  #builds = 0;
  /** The variant or the bare model whose jobs run now. */
  #inUse: LoraPipeline | undefined;
  #evictions = 0;

  constructor(base: LoraPipeline, limits: VariantLimits) {
    this.#base = base;
    this.#limits = limits;
    limits.relief?.addSource('dropped_idle_variants', () => this.#dropIdle());
  }

  get info(): ModelInfo {
    return this.#base.info;
  }

  planMemory(): ModelMemory | undefined {
    return this.#base.planMemory?.();
  }

  get backend(): Backend {
    return this.#base.backend;
  }

  get variants(): BuiltVariants {
    const bytes = this.#variants.size * this.#base.variantBytes;
    return { keys: this.#variants.keys(), builds: this.#builds, evictions: this.#evictions, bytes };
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
    if (key !== '') this.#variants.set(key, pipeline);
    this.#inUse = pipeline;
    try {
      yield* pipeline.generate(jobs);
    } finally {
      this.#inUse = undefined;
    }
  }

  async dispose(): Promise<void> {
    for (const variant of this.#variants.values()) await variant.dispose();
    await this.#base.dispose();
  }

  /** @throws InferenceError OUT_OF_MEMORY where there is no room even without the other variants */
  async #build(loras: readonly LoraSource[]): Promise<LoraPipeline> {
    while (this.#variants.size >= this.#limits.count) await this.#disposeOldest();
    await this.#makeRoom();
    this.#builds += 1;
    try {
      return await this.#base.withLoras(loras);
    } catch (error) {
      // A problem of a file stays one. An error of the runtime may be a lack of room beside the other variants.
      if (error instanceof InferenceError || this.#variants.size === 0) throw error;
      while (this.#variants.size > 0) await this.#disposeOldest();
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
      await this.#disposeOldest();
    }
  }

  /** @returns false if there was no other variant than the one in use */
  async #dropIdle(): Promise<boolean> {
    let hasDropped = false;
    for (const key of this.#variants.keys()) {
      const variant = this.#variants.take(key);
      if (variant === undefined) continue;
      if (variant === this.#inUse) {
        this.#variants.set(key, variant);
        continue;
      }
      await variant.dispose();
      hasDropped = true;
    }
    return hasDropped;
  }

  async #disposeOldest(): Promise<void> {
    this.#evictions += 1;
    await this.#variants.takeOldest()?.dispose();
  }
}

import type { Engine } from '../../engine/engine.js';
import type { BuiltVariants, NetworkPrecision } from '../../pipelines/pipeline.js';
import type { GenerateJob } from './generate-job.js';

const NO_VARIANTS: BuiltVariants = { keys: [], builds: 0 };

/** One of the engines that serve a model's queue, and what it holds. */
export class EngineSlot {
  readonly engine: Engine;
  running: readonly GenerateJob[] = [];
  /** LoRA variants that the engine holds. */
  variants: BuiltVariants = NO_VARIANTS;
  /** What its networks computed in at the last job. Undefined before the first one. */
  precisions: readonly NetworkPrecision[] | undefined;
  /** Time that its last build of a variant took, in seconds. */
  buildSeconds: number | undefined;
  /** A loop serves the queue with this engine now. */
  isServing = false;

  constructor(engine: Engine) {
    this.engine = engine;
    engine.onStateChange(() => {
      if (!this.isUp) this.#forget();
    });
  }

  /** The engine takes jobs or will take them again. */
  get isAlive(): boolean {
    const { state } = this.engine;
    return state !== 'failed' && state !== 'stopped';
  }

  /** The engine has loaded its model. */
  get isUp(): boolean {
    const { state } = this.engine;
    return state === 'ready' || state === 'busy';
  }

  /** @param variant its key; the bare model, whose key is empty, is always there */
  holds(variant: string): boolean {
    return variant === '' || this.variants.keys.includes(variant);
  }

  /** The process ended, and what it held with it. */
  #forget(): void {
    this.variants = NO_VARIANTS;
    this.precisions = undefined;
  }

  /** A failure may have evicted variants. */
  forgetVariants(): void {
    this.variants = { ...this.variants, keys: [] };
  }
}

/**
 * The order in which free engines are offered a job: those that hold its variant, then those with fewer variants to lose, then those
 * that have loaded their model.
 */
export function preferredFor(variant: string, slots: readonly EngineSlot[]): readonly EngineSlot[] {
  const rank = (slot: EngineSlot) => [slot.isUp ? 0 : 1, slot.holds(variant) ? 0 : 1, slot.variants.keys.length];
  return [...slots].sort((a, b) => {
    const [x, y] = [rank(a), rank(b)];
    return x.reduce((order, value, i) => order || value - (y[i] ?? 0), 0);
  });
}

/** The wait for one of several engines, to which jobs go as they become free. */
export class EngineWait {
  /** Seconds that each engine still works. */
  readonly #free: number[];
  #isKnown = true;

  /** @param running seconds of the jobs that each engine runs; undefined ones are not known */
  constructor(running: readonly (readonly (number | undefined)[])[]) {
    this.#free = running.map((jobs) => jobs.reduce<number>((sum, seconds) => sum + this.#known(seconds), 0));
    // Without an engine the wait is that of one.
    if (this.#free.length === 0) this.#free.push(0);
  }

  /** Seconds until the first engine is free; undefined if a job's time is not known. */
  get seconds(): number | undefined {
    return this.#isKnown ? Math.min(...this.#free) : undefined;
  }

  /** Gives a job to the engine that is free first. */
  add(seconds: number | undefined): void {
    const first = this.#free.indexOf(Math.min(...this.#free));
    this.#free[first] = (this.#free[first] ?? 0) + this.#known(seconds);
  }

  #known(seconds: number | undefined): number {
    this.#isKnown &&= seconds !== undefined;
    return seconds ?? 0;
  }
}

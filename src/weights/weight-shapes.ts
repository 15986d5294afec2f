import { InferenceError } from '../errors.js';
import { shown } from '../std/shown.js';
import type { WeightFiles } from './weight-files.js';

/** Layers of a kind that one network may have. The largest published models have fewer; a file can name 60,000 empty ones. */
export const MAX_LAYERS = 256;

/** The shapes of a network's tensors, from which its configuration follows. */
export class WeightShapes {
  readonly #files: WeightFiles;
  readonly #family: string;

  /** @param family name of the expected model in messages: "an SDXL" */
  constructor(files: WeightFiles, family: string) {
    this.#files = files;
    this.#family = family;
  }

  has(key: string): boolean {
    return this.#files.tensors.has(key);
  }

  /** @throws InferenceError CHECKPOINT_INVALID where there is no such tensor */
  of(key: string): readonly number[] {
    return (
      this.#files.tensors.get(key)?.shape ?? this.refuse(`has no ${key}; it is not whole, or not of ${this.#family}`)
    );
  }

  /**
   * 0, 1, … as long as there is such a key.
   * @throws InferenceError CHECKPOINT_INVALID where there are more than MAX_LAYERS
   */
  range(key: (i: number) => string): readonly number[] {
    const found: number[] = [];
    while (this.has(key(found.length))) {
      if (found.length === MAX_LAYERS)
        this.refuse(`has ${shown(key(MAX_LAYERS))}, must have at most ${MAX_LAYERS} layers of a kind`);
      found.push(found.length);
    }
    return found;
  }

  refuse(problem: string): never {
    throw new InferenceError('CHECKPOINT_INVALID', `${this.#files.path} ${problem}`);
  }
}

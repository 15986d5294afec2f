import type { EncodedPrompt, PromptEncoder } from './prompt-encoder.js';

/** Prompts that are kept: up to 8 MB each on the released model, and the negative one is nearly always the same. */
const CACHE_ENTRIES = 64;

/**
 * Prompts and what they were encoded to. The encoder is the largest part of the model and is needed once a job: it is loaded
 * for prompts that are not known, and given back after them unless it is to stay.
 */
export class Prompts {
  readonly #load: () => Promise<PromptEncoder>;
  readonly #keepsEncoder: boolean;
  readonly #cache = new Map<string, EncodedPrompt>();
  #encoder: Promise<PromptEncoder> | undefined;

  constructor(load: () => Promise<PromptEncoder>, keepsEncoder: boolean) {
    this.#load = load;
    this.#keepsEncoder = keepsEncoder;
  }

  isCached(prompt: string): boolean {
    return this.#cache.has(prompt);
  }

  async encode(prompt: string): Promise<EncodedPrompt> {
    const known = this.#cache.get(prompt);
    this.#cache.delete(prompt);
    const encoded = known ?? (await this.#run(prompt));
    this.#cache.set(prompt, encoded); // last in the map: used most recently
    const [oldest] = this.#cache.keys();
    if (this.#cache.size > CACHE_ENTRIES && oldest !== undefined) this.#cache.delete(oldest);
    return encoded;
  }

  /** All prompts of a job are encoded: the encoder's memory is for others now. */
  async rest(): Promise<void> {
    if (!this.#keepsEncoder) await this.release();
  }

  async release(): Promise<void> {
    const encoder = this.#encoder;
    this.#encoder = undefined;
    await (await encoder)?.release();
  }

  async #run(prompt: string): Promise<EncodedPrompt> {
    this.#encoder ??= this.#load();
    return (await this.#encoder).encode(prompt);
  }
}

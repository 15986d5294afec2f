import { LruMap } from '../../../std/lru-map.js';
import type { EncodedPrompt, PromptEncoder } from './prompt-encoder.js';

/** Prompts that are kept: up to 8 MB each on the released model, and the negative one is nearly always the same. */
const CACHE_ENTRIES = 64;

/**
 * Encodes prompts, and keeps the states of those used last. The encoder is the largest part of the model and a job needs it
 * once: it is loaded for prompts that are not cached, and released after them unless it is to stay.
 */
export class PromptCache {
  readonly #load: () => Promise<PromptEncoder>;
  readonly #keepsEncoder: boolean;
  readonly #cache = new LruMap<string, EncodedPrompt>(CACHE_ENTRIES);
  #encoder: Promise<PromptEncoder> | undefined;

  constructor(load: () => Promise<PromptEncoder>, keepsEncoder: boolean) {
    this.#load = load;
    this.#keepsEncoder = keepsEncoder;
  }

  isCached(prompt: string): boolean {
    return this.#cache.has(prompt);
  }

  async encode(prompt: string, signal?: AbortSignal): Promise<EncodedPrompt> {
    const known = this.#cache.get(prompt);
    if (known !== undefined) return known;
    this.#encoder ??= this.#load();
    const encoded = await (await this.#encoder).encode(prompt, signal);
    this.#cache.set(prompt, encoded);
    return encoded;
  }

  /** Called when all prompts of a job are encoded: the encoder's memory is needed by the other networks. */
  async releaseIfIdle(): Promise<void> {
    if (!this.#keepsEncoder) await this.release();
  }

  async release(): Promise<void> {
    const encoder = this.#encoder;
    this.#encoder = undefined;
    await (await encoder)?.release();
  }
}

import { LruMap } from '../../../std/lru-map.js';
import type { PromptSyntax } from '../../pipeline.js';
import type { PromptEmbeds, PromptEncoder } from './prompt-encoder.js';

/** Chunks of embeddings that are kept: 0.6 MB each on the released model. */
const CACHE_CHUNKS = 64;

/** Encodes prompts, and keeps the embeddings of those used last. */
export class PromptCache {
  readonly encoder: PromptEncoder;
  readonly #cache = new LruMap<string, PromptEmbeds>(CACHE_CHUNKS, ({ report }) => report.chunks);

  constructor(encoder: PromptEncoder) {
    this.encoder = encoder;
  }

  isCached(prompt: string, syntax: PromptSyntax): boolean {
    return this.#cache.has(keyOf(prompt, syntax));
  }

  /** Never fails because of the prompt's text: weights that cannot be read are encoded as text, and `report` has the reason. */
  async encode(prompt: string, syntax: PromptSyntax): Promise<PromptEmbeds> {
    const key = keyOf(prompt, syntax);
    const known = this.#cache.get(key);
    if (known !== undefined) return known;
    const embeds = await this.encoder.encode(prompt, syntax);
    this.#cache.set(key, embeds);
    return embeds;
  }
}

function keyOf(prompt: string, syntax: PromptSyntax): string {
  return `${syntax} ${prompt}`;
}

import type { NetworkSession } from '../../graph/session.js';
import type { ClipTokenizer } from '../../tokenizer/clip.js';
import type { TextEncoderConfig } from './config.js';

/** Prompts whose embeddings are kept: 0.6 MB each on the released model. */
const CACHE_ENTRIES = 64;

/** What the UNet is conditioned on, for one prompt. */
export interface PromptEmbeds {
  /** [1, T, X]: both encoders' penultimate states, side by side. */
  readonly embeds: Float32Array;
  /** [1, P] */
  readonly pooled: Float32Array;
}

interface Encoder {
  readonly tokenizer: ClipTokenizer;
  readonly session: NetworkSession;
  readonly config: TextEncoderConfig;
}

/** Turns prompts into embeddings, and remembers the last ones. */
export class PromptEncoder {
  readonly #encoders: readonly [Encoder, Encoder];
  readonly #cache = new Map<string, PromptEmbeds>();

  constructor(first: Encoder, second: Encoder) {
    this.#encoders = [first, second];
  }

  /** Tokens of each prompt, T. */
  get tokens(): number {
    return this.#encoders[0].config.max_position_embeddings;
  }

  get width(): number {
    return this.#encoders[0].config.hidden_size + this.#encoders[1].config.hidden_size;
  }

  get pooledWidth(): number {
    return this.#encoders[1].config.projection_dim;
  }

  isCached(prompt: string): boolean {
    return this.#cache.has(prompt);
  }

  async encode(prompt: string): Promise<PromptEmbeds> {
    const known = this.#cache.get(prompt);
    this.#cache.delete(prompt);
    const embeds = known ?? (await this.#run(prompt));
    this.#cache.set(prompt, embeds); // last in the map: used most recently
    const [oldest] = this.#cache.keys();
    if (this.#cache.size > CACHE_ENTRIES && oldest !== undefined) this.#cache.delete(oldest);
    return embeds;
  }

  /** What stands for a negative prompt that was not given: zeros, as the checkpoint asks. */
  zeros(): PromptEmbeds {
    return { embeds: new Float32Array(this.tokens * this.width), pooled: new Float32Array(this.pooledWidth) };
  }

  async release(): Promise<void> {
    for (const { session } of this.#encoders) await session.release();
  }

  async #run(prompt: string): Promise<PromptEmbeds> {
    const [first, second] = this.#encoders;
    const one = await first.session.run({ ids: idsFeed(first, prompt) });
    const ids = idsFeed(second, prompt);
    const end = { data: Int32Array.of(endTokenIndex(ids.data, second.config.eos_token_id)), shape: [1] };
    const two = await second.session.run({ ids, end });
    const { hidden } = one;
    const { hidden: hidden2, pooled } = two;
    if (hidden === undefined || hidden2 === undefined || pooled === undefined)
      throw new Error('a text encoder has no output');
    return { embeds: sideBySide(hidden, hidden2, this.tokens), pooled };
  }
}

function idsFeed({ tokenizer }: Encoder, prompt: string): { data: Int32Array; shape: number[] } {
  const { ids } = tokenizer.encode(prompt);
  return { data: ids, shape: [1, ids.length] };
}

/**
 * The position whose state is pooled. Configurations from before transformers 4.31 name 2 as the end token; there the largest
 * id marks it. https://github.com/huggingface/transformers/blob/v4.57.0/src/transformers/models/clip/modeling_clip.py#L617
 */
export function endTokenIndex(ids: Int32Array, eosTokenId: number): number {
  const wanted = eosTokenId === 2 ? ids.reduce((largest, id) => Math.max(largest, id), 0) : eosTokenId;
  return Math.max(0, ids.indexOf(wanted));
}

// [T, A] and [T, B] -> [T, A+B]
function sideBySide(a: Float32Array, b: Float32Array, tokens: number): Float32Array {
  const [wide, narrow] = [a.length / tokens, b.length / tokens];
  const rows = new Float32Array(a.length + b.length);
  for (let t = 0; t < tokens; t += 1) {
    rows.set(a.subarray(t * wide, (t + 1) * wide), t * (wide + narrow));
    rows.set(b.subarray(t * narrow, (t + 1) * narrow), t * (wide + narrow) + wide);
  }
  return rows;
}

import { LruMap } from '../../../std/lru-map.js';
import { EmbeddingNames } from '../../embeddings/embedding-names.js';
import { type Embedding, readEmbedding } from '../../embeddings/read-embedding.js';
import type { PromptSyntax, RequestEmbedding } from '../../pipeline.js';
import type { PromptEmbeds, PromptEncoder } from './prompt-encoder.js';

/** Chunks of embeddings that are kept: 0.6 MB each on the released model. */
const CACHE_CHUNKS = 64;

/** Embeddings that are kept: 80 KB each with 10 vectors, 1 MB at most. */
const CACHE_EMBEDDINGS = 64;

/** Encodes prompts, and keeps the embeddings of those used last. */
export class PromptCache {
  readonly encoder: PromptEncoder;
  readonly #cache = new LruMap<string, PromptEmbeds>(CACHE_CHUNKS, ({ report }) => report.chunks);
  readonly #learned = new LruMap<string, Embedding>(CACHE_EMBEDDINGS);

  constructor(encoder: PromptEncoder) {
    this.encoder = encoder;
  }

  /** @param embeddings those of the request */
  isCached(prompt: string, syntax: PromptSyntax, embeddings: readonly RequestEmbedding[] = []): boolean {
    return this.#cache.has(keyOf(prompt, syntax, namedIn(prompt, embeddings)));
  }

  /**
   * Never fails because of the prompt's text: weights that cannot be read are encoded as text, and `report` has the reason.
   * @param embeddings those of the request: the prompt may name some of them
   * @throws InferenceError for the file of an embedding that the prompt names
   */
  async encode(
    prompt: string,
    syntax: PromptSyntax,
    embeddings: readonly RequestEmbedding[] = [],
  ): Promise<PromptEmbeds> {
    const named = namedIn(prompt, embeddings);
    const key = keyOf(prompt, syntax, named);
    const known = this.#cache.get(key);
    if (known !== undefined) return known;
    const learned: Embedding[] = [];
    for (const embedding of named) learned.push(await this.#read(embedding));
    const embeds = await this.encoder.encode(prompt, syntax, learned);
    this.#cache.set(key, embeds);
    return embeds;
  }

  async #read(embedding: RequestEmbedding): Promise<Embedding> {
    const key = identityOf(embedding);
    const known = this.#learned.get(key);
    if (known !== undefined) return known;
    const read = await readEmbedding(embedding, this.encoder.widths);
    this.#learned.set(key, read);
    return read;
  }
}

function namedIn(prompt: string, embeddings: readonly RequestEmbedding[]): readonly RequestEmbedding[] {
  if (embeddings.length === 0) return [];
  const names = new EmbeddingNames(embeddings.map(({ name }) => name)).in(prompt);
  return embeddings.filter(({ name }) => names.includes(name));
}

function keyOf(prompt: string, syntax: PromptSyntax, named: readonly RequestEmbedding[]): string {
  return JSON.stringify([syntax, prompt, ...named.map(identityOf)]);
}

function identityOf({ name, revision }: RequestEmbedding): string {
  return `${revision} ${name}`;
}

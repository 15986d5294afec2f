import { InferenceError } from '../../errors.js';
import { EmbeddingNames, type NamePart, takeEmbeddingSigns } from '../../pipelines/embeddings/embedding-names.js';
import type { AnyFamily, CountedEmbedding } from '../../pipelines/family.js';
import type { PromptSyntax, RequestEmbedding } from '../../pipelines/pipeline.js';
import type { AddOnRegistry } from './add-on-registry.js';

/** Each is up to 1 MB in the engine. */
const MAX_EMBEDDINGS = 16;
/** Tokens of a prompt of 64 chunks. A name that is repeated would make millions. */
const MAX_TOKENS = 4_800;

/** Fields of the request, by the names of their texts. */
const FIELDS: Readonly<Record<string, string>> = { negativePrompt: 'negative_prompt' };

type Texts = Readonly<Record<string, string>>;

/** Texts that name embeddings. */
export interface EmbeddedTexts<T extends Texts> {
  /** The texts without ComfyUI's signs: `embedding:NAME` is `NAME`. */
  readonly texts: T;
  /** The embeddings that some text names, each once. */
  readonly embeddings: readonly RequestEmbedding[];
}

/**
 * Finds the embeddings that texts name. A name is a whole word, in capitals or not; `embedding:NAME` names one, too, but with the
 * syntax of diffusers, which has no signs. A file for another base is named by its sign alone: without it, the word stays text.
 * @throws InferenceError EMBEDDING_NOT_FOUND for a sign before another word, MODEL_UNSUPPORTED for an embedding of another base, the
 * fault of a file, INVALID_REQUEST for too many
 */
export function findEmbeddings<T extends Texts>(
  texts: T,
  syntax: PromptSyntax,
  family: AnyFamily,
  registry: AddOnRegistry<'embedding'>,
): EmbeddedTexts<T> {
  if (!registry.isConfigured || !family.takes.embeddings) return { texts, embeddings: [] };
  const names = namesOf(family, registry);
  const read = Object.entries(texts).map(([key, text]) => {
    const taken = syntax === 'diffusers' ? { text, unknown: [] } : takeEmbeddingSigns(text, names);
    for (const name of taken.unknown) registry.get(name, family);
    return [key, taken.text] as const;
  });
  const named = [...new Set(read.flatMap(([, text]) => names.in(text)))];
  if (named.length > MAX_EMBEDDINGS) {
    refuse('prompt', `prompts name ${named.length} embeddings, must name at most ${MAX_EMBEDDINGS}`);
  }
  for (const [key, text] of read) {
    const field = FIELDS[key] ?? key;
    const tokens = names.split(text).reduce((sum, part) => sum + tokensOf(part, registry, family), 0);
    if (tokens > MAX_TOKENS)
      refuse(field, `embeddings in ${field} have ${tokens} tokens, must have at most ${MAX_TOKENS}`);
  }
  const embeddings = named.map((name) => {
    const { path, revision } = registry.get(name, family);
    return { name, path, revision };
  });
  return { texts: Object.fromEntries(read) as T, embeddings };
}

function tokensOf(part: NamePart, registry: AddOnRegistry<'embedding'>, family: AnyFamily): number {
  return part.kind === 'text' ? 0 : Math.max(0, ...(registry.get(part.name, family).summary?.counts ?? []));
}

function refuse(field: string, problem: string): never {
  const description = `${problem}; take some out`;
  throw new InferenceError('INVALID_REQUEST', description, { violations: [{ field, description }] });
}

/** A text for a tokenizer, and the embeddings whose names it may have. @throws InferenceError as `findEmbeddings` */
export function countEmbeddings(
  text: string,
  syntax: PromptSyntax,
  family: AnyFamily,
  registry: AddOnRegistry<'embedding'>,
): { readonly text: string; readonly embeddings: readonly CountedEmbedding[] } {
  const { texts, embeddings } = findEmbeddings({ text }, syntax, family, registry);
  const counted = embeddings.map(({ name }) => ({ name, counts: registry.get(name, family).summary?.counts ?? [] }));
  return { text: texts.text, embeddings: counted };
}

/** Names by what a registry knew when they were collected: thousands of them take milliseconds. */
const collected = new WeakMap<object, Map<string, EmbeddingNames>>();

function namesOf(family: AnyFamily, registry: AddOnRegistry<'embedding'>): EmbeddingNames {
  const { known } = registry;
  const all = collected.get(known) ?? new Map<string, EmbeddingNames>();
  collected.set(known, all);
  const key = `${family.name} ${known.size}`;
  const names = all.get(key) ?? new EmbeddingNames(registry.of(family).map(({ name }) => name));
  all.set(key, names);
  return names;
}

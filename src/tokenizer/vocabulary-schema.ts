import { z } from 'zod';

/** The largest vocabularies have 256,000 tokens. */
export const MAX_TOKENS = 400_000;
/** T5 has 300 beside its pieces. A text is searched for all of them at once. */
export const MAX_ADDED_TOKENS = 1_000;

/**
 * Ids by their tokens. The object is looked through by hand: a schema of its entries would copy it, and list each bad one of a
 * million.
 * @param maxTokens Omitted: MAX_TOKENS
 */
export function vocabularySchema(maxTokens: number = MAX_TOKENS): z.ZodType<Readonly<Record<string, number>>> {
  return z.custom<Readonly<Record<string, number>>>(
    (value) => isVocabulary(value, maxTokens),
    `must be an object of at most ${maxTokens} ids by their tokens`,
  );
}

function isVocabulary(value: unknown, maxTokens: number): boolean {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false;
  const ids = Object.values(value);
  return ids.length <= maxTokens && ids.every((id) => Number.isSafeInteger(id) && id >= 0);
}

import { readFile, stat } from 'node:fs/promises';
import type { z } from 'zod';
import { InferenceError } from '../errors.js';
import { type JsonBudget, parseBoundedJson } from './bounded-json.js';
import { problemsOf } from './schema-problems.js';

export interface JsonFileOptions {
  /** A larger file is rejected unread. */
  readonly maxBytes: number;
  /** End of the message for a missing file, after the path. */
  readonly missing: string;
  /** Content that a missing file counts as. Omitted: a missing file is an error. */
  readonly fallback?: unknown;
}

/** Bad fields that a message lists. */
const MAX_ISSUES = 12;
/** UMT5's tokenizer.json, the largest, has 770,000 values. */
const BUDGET: JsonBudget = { maxDepth: 32, maxValues: 3_000_000 };

/**
 * Reads a JSON file of a checkpoint and checks it.
 * @throws InferenceError CHECKPOINT_INVALID that names the file and every bad field
 */
export async function readJsonFile<T>(path: string, schema: z.ZodType<T>, options: JsonFileOptions): Promise<T> {
  const text = await readTextFile(path, options).catch((error: unknown) => {
    if (error instanceof MissingFileError && options.fallback !== undefined) return undefined;
    throw error;
  });
  const json = text === undefined ? options.fallback : parseJson(path, text);
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const problems = problemsOf(parsed.error);
  const more = problems.length > MAX_ISSUES ? `; and ${problems.length - MAX_ISSUES} more` : '';
  return refuse(path, problems.slice(0, MAX_ISSUES).join('; ') + more);
}

/** Reads a text file of a checkpoint, up to a size. */
export async function readTextFile(path: string, { maxBytes, missing }: JsonFileOptions): Promise<string> {
  const entry = await stat(path).catch(() => undefined);
  if (entry === undefined) throw new MissingFileError('CHECKPOINT_INVALID', `${path} is missing; ${missing}`);
  if (!entry.isFile()) refuse(path, 'is not a file');
  if (entry.size > maxBytes) refuse(path, `is ${entry.size} bytes long, the limit is ${maxBytes}`);
  return readFile(path, 'utf8');
}

class MissingFileError extends InferenceError {}

function parseJson(path: string, text: string): unknown {
  try {
    return parseBoundedJson(text, BUDGET);
  } catch (error) {
    return refuse(path, error instanceof RangeError ? error.message : 'is not JSON');
  }
}

function refuse(path: string, problem: string): never {
  throw new InferenceError('CHECKPOINT_INVALID', `${path} ${problem}`);
}

import { readFile, stat } from 'node:fs/promises';
import type { z } from 'zod';
import { InferenceError, listProblems } from '../errors.js';
import { problemOf } from './schema-problems.js';

export interface OperatorFileOptions {
  /** Names the file in messages. */
  readonly variable: string;
  /** A larger file is rejected unread. */
  readonly maxBytes: number;
}

/**
 * Reads a YAML file that an operator wrote, and checks it. Parsing takes seconds for each megabyte: a file that a running server reads
 * again is JSON.
 * @throws InferenceError INVALID_REQUEST that lists every fault of the file
 */
export function readOperatorYaml<T>(path: string, schema: z.ZodType<T>, options: OperatorFileOptions): Promise<T> {
  return readChecked(path, schema, options, parseYaml);
}

/**
 * Reads a JSON file that an operator may edit, and checks it. A byte order mark is skipped.
 * @throws InferenceError INVALID_REQUEST that lists every fault of the file
 */
export function readOperatorJson<T>(path: string, schema: z.ZodType<T>, options: OperatorFileOptions): Promise<T> {
  return readChecked(path, schema, options, parseJson);
}

type Refuse = (problem: string) => never;

async function readChecked<T>(
  path: string,
  schema: z.ZodType<T>,
  { variable, maxBytes }: OperatorFileOptions,
  parseText: (text: string, refuse: Refuse) => unknown,
): Promise<T> {
  const refuse: Refuse = (problem) => {
    throw new InferenceError('INVALID_REQUEST', `${variable} ${path} ${problem}`);
  };
  const entry = await stat(path).catch(() => refuse('does not exist or cannot be read'));
  // A missing file that Docker was asked to mount is a folder; a pipe would be waited for.
  if (!entry.isFile()) refuse(`is ${entry.isDirectory() ? 'a folder' : 'no regular file'}; it must be a file`);
  if (entry.size > maxBytes) refuse(`is ${entry.size} bytes long, the limit is ${maxBytes}`);
  const text = await readFile(path, 'utf8').catch((error: Error) => refuse(`cannot be read: ${error.message}`));
  const parsed = schema.safeParse(await parseText(text, refuse));
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => `${issue.path.join('.') || 'it'} ${problemOf(issue)}`);
  return refuse(`has mistakes:\n${listProblems(problems)}`);
}

async function parseYaml(text: string, refuse: Refuse): Promise<unknown> {
  // Imported here: most processes read no such file.
  const { parse } = await import('yaml');
  try {
    return parse(text);
  } catch (error) {
    return refuse(`is not YAML: ${error instanceof Error ? error.message.split('\n')[0] : error}`);
  }
}

function parseJson(text: string, refuse: Refuse): unknown {
  try {
    return JSON.parse(text.replace(/^\uFEFF/, ''));
  } catch (error) {
    return refuse(`is not JSON: ${error instanceof Error ? error.message.split('\n')[0] : error}`);
  }
}

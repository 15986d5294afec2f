import { readFile, stat } from 'node:fs/promises';
import { parse } from 'yaml';
import type { z } from 'zod';
import { InferenceError, listProblems } from '../errors.js';

/**
 * Reads a YAML file that an operator wrote, and checks it.
 * @param variable that names the file, for messages
 * @param maxBytes a larger file is rejected unread
 * @throws InferenceError INVALID_REQUEST that lists every fault of the file
 */
export async function readYamlFile<T>(
  path: string,
  schema: z.ZodType<T>,
  { variable, maxBytes }: { readonly variable: string; readonly maxBytes: number },
): Promise<T> {
  const refuse = (problem: string): never => {
    throw new InferenceError('INVALID_REQUEST', `${variable} ${path} ${problem}`);
  };
  const entry = await stat(path).catch(() => refuse('does not exist or cannot be read'));
  if (entry.size > maxBytes) refuse(`is ${entry.size} bytes long, the limit is ${maxBytes}`);
  const parsed = schema.safeParse(parseYaml(await readFile(path, 'utf8'), refuse));
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map(({ path: at, message }) => `${at.join('.') || 'it'} ${message}`);
  return refuse(`has mistakes:\n${listProblems(problems)}`);
}

function parseYaml(text: string, refuse: (problem: string) => never): unknown {
  try {
    return parse(text);
  } catch (error) {
    return refuse(`is not YAML: ${error instanceof Error ? error.message.split('\n')[0] : error}`);
  }
}

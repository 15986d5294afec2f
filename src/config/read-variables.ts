import type { z } from 'zod';
import { InferenceError, listProblems } from '../errors.js';
import { problemOf } from '../std/schema-problems.js';

/** Variables whose values messages do not show. */
const SECRET = /TOKEN|KEY|SECRET|REDIS_URL/;

/**
 * Reads the variables of a schema. A variable that is set to nothing counts as unset.
 * @throws InferenceError INVALID_REQUEST that lists every bad variable
 */
export function readVariables<T extends z.ZodType>(schema: T, variables: NodeJS.ProcessEnv): Readonly<z.infer<T>> {
  const given = Object.fromEntries(
    Object.entries(variables).filter(([, value]) => value !== undefined && value !== ''),
  );
  const parsed = schema.safeParse(given);
  if (parsed.success) return Object.freeze(parsed.data as object) as Readonly<z.infer<T>>;
  const problems = parsed.error.issues.map((issue) => {
    const name = String(issue.path[0]);
    const value = given[name];
    return `${name}${SECRET.test(name) || value === undefined ? '' : ` "${value}"`}: ${problemOf(issue)}`;
  });
  throw new InferenceError('INVALID_REQUEST', `the configuration has mistakes:\n${listProblems(problems)}`);
}

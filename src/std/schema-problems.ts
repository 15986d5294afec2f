import type { z } from 'zod';

/** What is wrong with a value, a sentence a field: `field.inner: message`. */
export function problemsOf({ issues }: z.ZodError): readonly string[] {
  return issues.map((issue) => `${issue.path.join('.')}: ${problemOf(issue)}`);
}

/** How zod's own messages begin. Those of a schema say more, and stay as they are. */
const OWN_MESSAGE = /^(Invalid (input|option)|Too (small|big)): /;

const TYPES: Readonly<Record<string, string>> = {
  string: 'a text',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
  array: 'a list',
  object: 'an object',
  record: 'an object',
};

/** What is wrong with a field: its bound, or what it must be. */
export function problemOf(issue: z.core.$ZodIssue): string {
  if (!OWN_MESSAGE.test(issue.message)) return issue.message;
  switch (issue.code) {
    case 'invalid_value':
      return `must be ${issue.values.length === 1 ? '' : 'one of '}${issue.values.map(String).join(', ')}`;
    case 'invalid_type':
      return `must be ${TYPES[issue.expected] ?? issue.expected}`;
    case 'too_small':
      return bounded(issue.origin, `${issue.inclusive === false ? '>' : '>='} ${issue.minimum}`);
    case 'too_big':
      return bounded(issue.origin, `${issue.inclusive === false ? '<' : '<='} ${issue.maximum}`);
    default:
      return issue.message;
  }
}

/** @param origin what has the bound: a number itself, or the length of something */
function bounded(origin: string, bound: string): string {
  switch (origin) {
    case 'string':
      return `must have ${bound} characters`;
    case 'array':
    case 'set':
      return `must have ${bound} entries`;
    default:
      return `must be ${bound}`;
  }
}

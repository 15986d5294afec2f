import type { z } from 'zod';

/** What is wrong with a value, a sentence a field: `field.inner: message`. */
export function problemsOf({ issues }: z.ZodError): readonly string[] {
  return issues.map(({ path, message }) => `${path.join('.')}: ${message}`);
}

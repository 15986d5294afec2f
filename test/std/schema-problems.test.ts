import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { problemsOf } from '../../src/std/schema-problems.js';

describe('problemsOf()', () => {
  const schema = z.object({
    steps: z.coerce.number().int().min(1).max(1000),
    share: z.number().positive().lt(1),
    kind: z.enum(['png', 'webp']),
    version: z.literal(2),
    name: z.string().min(1, 'must name a model').max(8),
    layers: z.array(z.number()).min(1),
    isOpen: z.boolean(),
  });
  const good = { steps: 4, share: 0.5, kind: 'png', version: 2, name: 'a', layers: [1], isOpen: true };

  it.each([
    [{ steps: 0 }, 'steps: must be >= 1'],
    [{ steps: 2000 }, 'steps: must be <= 1000'],
    [{ steps: 1.5 }, 'steps: must be a whole number'],
    [{ steps: 'many' }, 'steps: must be a number'],
    [{ share: 0 }, 'share: must be > 0'],
    [{ share: 1 }, 'share: must be < 1'],
    [{ kind: 'bmp' }, 'kind: must be one of png, webp'],
    [{ version: 1 }, 'version: must be 2'],
    [{ name: '' }, 'name: must name a model'],
    [{ name: 'a'.repeat(9) }, 'name: must have <= 8 characters'],
    [{ layers: [] }, 'layers: must have >= 1 entries'],
    [{ layers: ['a'] }, 'layers.0: must be a number'],
    [{ isOpen: 'yes' }, 'isOpen: must be true or false'],
  ])('%o', (change, problem) => {
    const parsed = schema.safeParse({ ...good, ...change });
    expect(parsed.error && problemsOf(parsed.error)).toEqual([problem]);
  });
});

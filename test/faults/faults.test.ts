import { describe, expect, inject, it } from 'vitest';
import { runStorm } from './storm.js';

describe('under fire', () => {
  // More of it, and longer: npm run test:faults.
  it.each([11, 12])(
    'every job is called back once, with one set of files, and nothing stays leased (seed %i)',
    { timeout: 240_000 },
    async (seed) => {
      const { violations, late, callbacks } = await runStorm({
        seed,
        jobs: 50,
        kills: 16,
        settleMs: 30_000,
        models: { sdxl: inject('tinySdxl'), wan: inject('tinyWan') },
        say: () => undefined,
      });
      expect([violations, late]).toEqual([[], []]);
      expect(callbacks).toBeGreaterThanOrEqual(50);
    },
  );
});

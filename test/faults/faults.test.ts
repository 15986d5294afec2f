import { describe, expect, inject, it } from 'vitest';
import { runStorm } from './storm.js';

describe('under fire', () => {
  // More of it, longer, and with other seeds: npm run test:faults.
  it('every job is called back once, with one set of files, and nothing stays leased', {
    timeout: 240_000,
  }, async () => {
    const { violations, late, callbacks } = await runStorm({
      seed: 11,
      jobs: 50,
      kills: 16,
      settleMs: 30_000,
      models: { sdxl: inject('tinySdxl'), wan: inject('tinyWan') },
      say: () => undefined,
    });
    expect([violations, late]).toEqual([[], []]);
    expect(callbacks).toBeGreaterThanOrEqual(50);
  });
});

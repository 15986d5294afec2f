import { describe, expect, it } from 'vitest';
import { ProgressMeter } from '../../src/server/jobs/job-progress.js';

describe('ProgressMeter', () => {
  it('never falls, ends at 1, and tells the time to go from the second denoising step on', () => {
    const meter = new ProgressMeter();
    const phases = [
      'encode',
      'denoise',
      'denoise',
      'denoise',
      'decode',
      'denoise',
      'denoise',
      'denoise',
      'decode',
    ] as const;
    const counts = { encode: 0, denoise: 0, decode: 0 };
    const progress = phases.map((phase, i) => {
      counts[phase] += 1;
      return meter.advance(
        { kind: 'progress', phase, step: counts[phase], total: phase === 'decode' ? 2 : 6 },
        i * 100,
      );
    });
    expect(progress.map(({ fraction }) => Number(fraction.toFixed(3)))).toEqual([
      0, 0.15, 0.3, 0.45, 0.5, 0.65, 0.8, 0.95, 1,
    ]);
    expect(progress.map(({ etaSeconds }) => etaSeconds !== undefined)).toEqual([
      false,
      false,
      ...new Array(7).fill(true),
    ]);
    // 0.15 of the job took 100 ms: 0.7 of it are left.
    expect(progress[2]?.etaSeconds).toBeCloseTo(0.467, 3);
    expect(progress.at(-1)?.etaSeconds).toBe(0);
  });
});

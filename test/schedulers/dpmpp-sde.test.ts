import { describe, expect, it } from 'vitest';
import { createScheduler } from '../../src/schedulers/beta-schedulers.js';
import { sdxlSchedule } from '../support/sdxl-schedule.js';

// Trajectories are checked against diffusers in test/conformance; these are the rules around them.
const sdxl = { ...sdxlSchedule, prediction_type: 'sample' };
const clean = Float32Array.of(0.25);
const start = Float32Array.of(8);

describe('DPM++ SDE', () => {
  it('draws noise once a call, but for the last, and ends at the clean sample', () => {
    const scheduler = createScheduler('dpmpp_sde', sdxl, 3);
    let draws = 0;
    let sample: Float32Array = start;
    for (const [call] of scheduler.timesteps.entries()) {
      sample = scheduler.step(clean, sample, call, (size) => {
        draws += 1;
        return new Float32Array(size).fill(1);
      });
    }
    expect([scheduler.timesteps.length, draws]).toEqual([5, 4]);
    expect([...sample]).toEqual([...clean]);
  });

  /** The sample after the first step, whose two calls draw these. */
  const firstStep = (draws: readonly [number, number]) => {
    const scheduler = createScheduler('dpmpp_sde', sdxl, 3);
    const step = (sample: Float32Array, call: 0 | 1) =>
      scheduler.step(clean, sample, call, () => Float32Array.of(draws[call]));
    return { end: step(step(start, 0), 1)[0] ?? 0, sigmas: scheduler.sigmas };
  };

  it('adds the noise of a Brownian path: the increment of the whole step contains that of its first half', () => {
    const { end, sigmas } = firstStep([0, 0]);
    const [from = 0, middle = 0, to = 0] = sigmas;
    const first = firstStep([1, 0]).end - end;
    const second = firstStep([0, 1]).end - end;
    expect((first / second) ** 2).toBeCloseTo((from - middle) / (middle - to), 4);
    // Together they have the variance of an ancestral step.
    expect(first ** 2 + second ** 2).toBeCloseTo((to ** 2 * (from ** 2 - to ** 2)) / from ** 2, 3);
  });

  it('needs the call before, to step from where that began', () => {
    const scheduler = createScheduler('dpmpp_sde', sdxl, 3);
    expect(() => scheduler.step(clean, start, 1, () => clean)).toThrow('call 1 without the one before');
  });
});

import { describe, expect, it } from 'vitest';
import { createScheduler } from '../../src/schedulers/beta-schedulers.js';
import { sdxlSchedule as sdxl } from '../support/sdxl-schedule.js';

// Trajectories are checked against diffusers in test/conformance; these are the rules around them.
const draws = () => {
  const sizes: number[] = [];
  const draw = (size: number) => {
    sizes.push(size);
    return new Float32Array(size);
  };
  return { sizes, draw };
};

describe('multistep schedulers', () => {
  it.each([
    ['dpmpp_2m', 0],
    ['unipc', 0],
    ['ddim', 0],
    ['euler_ancestral', 3],
    ['dpmpp_2m_sde', 3],
    ['dpmpp_3m_sde', 3],
    ['lcm', 2], // not on its last step
  ])('%s draws noise %i times in three steps', (name, count) => {
    const scheduler = createScheduler(name, sdxl, 3);
    const { sizes, draw } = draws();
    let sample: Float32Array = Float32Array.of(1, -1);
    for (let i = 0; i < 3; i += 1) sample = scheduler.step(Float32Array.of(0.1, 0.2), sample, i, draw);
    expect(sizes).toEqual(new Array(count).fill(2));
    expect(sample.every(Number.isFinite)).toBe(true);
  });

  it.each([
    ['dpmpp_2m', 1000, 'steps 1000 must be < 1000 for this scheduler'],
    ['unipc', 1000, 'steps 1000 must be < 1000 for this scheduler'],
    ['lcm', 51, 'steps 51 must be <= 50 for the scheduler lcm'],
  ])('%s refuses %i steps', (name, steps, message) => {
    expect(() => createScheduler(name, sdxl, steps)).toThrow(message);
  });

  it('end at the clean sample that the model names', () => {
    for (const name of ['dpmpp_2m', 'unipc', 'ddim', 'euler']) {
      const scheduler = createScheduler(name, { ...sdxl, prediction_type: 'sample', clip_sample: false }, 1);
      const [end] = scheduler.step(Float32Array.of(0.3), Float32Array.of(2), 0, draws().draw);
      expect(end, name).toBeCloseTo(0.3, 5);
    }
  });

  // With the noise left out, and a clean sample that varies smoothly with the level. diffusers' third order halves its error here.
  it('DPM++ 3M SDE divides its error by at least three where steps are halved', () => {
    const last = (steps: number) => {
      const scheduler = createScheduler('dpmpp_3m_sde_exponential', { ...sdxl, prediction_type: 'sample' }, steps);
      let sample = new Float32Array(1);
      for (let i = 0; i < steps - 1; i += 1) {
        const clean = Float32Array.of(Math.cos(Math.log(scheduler.sigmas[i] ?? 0)));
        sample = Float32Array.from(scheduler.step(clean, sample, i, draws().draw));
      }
      return sample[0] ?? 0;
    };
    const exact = last(640);
    const [coarse = 0, middle = 0, fine = 0] = [10, 20, 40].map((steps) => Math.abs(last(steps) - exact));
    expect(coarse / middle).toBeGreaterThan(3);
    expect(middle / fine).toBeGreaterThan(3);
  });

  it("UniPC takes over a configuration that names another sampler's solver", () => {
    expect(() => createScheduler('unipc', { ...sdxl, solver_type: 'midpoint' }, 4)).not.toThrow();
    expect(() => createScheduler('unipc', { ...sdxl, solver_type: 'bh3' }, 4)).toThrow('solver_type: must be one of');
  });
});

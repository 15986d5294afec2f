import { describe, expect, it } from 'vitest';
import { createScheduler, firstCallOf } from '../../src/schedulers/beta-schedulers.js';
import { sdxlSchedule as sdxl } from '../support/sdxl-schedule.js';

// Trajectories are checked against diffusers in test/conformance; these are the rules around them.
const noDraw = () => {
  throw new Error('PNDM draws no noise');
};

describe('PNDM', () => {
  it('calls the denoiser at the end of the first step before the second step begins there', () => {
    expect([...createScheduler('pndm', sdxl, 4).timesteps]).toEqual([751, 501, 501, 251, 1]);
    expect([...createScheduler('pndm', sdxl, 1).timesteps]).toEqual([1]);
  });

  // A model that knows the noise makes every step exact, if it begins and ends at the levels of its timesteps.
  it.each([0, 1, 2, 3])('ends at the clean sample, begun at step %i', (step) => {
    const [clean, noise] = [0.25, -1.5];
    const scheduler = createScheduler('pndm', { ...sdxl, set_alpha_to_one: true }, 4);
    const first = firstCallOf('pndm', step);
    let sample = scheduler.addNoise(Float32Array.of(clean), Float32Array.of(noise), first);
    for (let call = first; call < scheduler.timesteps.length; call += 1) {
      sample = scheduler.step(Float32Array.of(noise), sample, call, noDraw);
    }
    expect(sample[0]).toBeCloseTo(clean, 5);
  });

  it('is stable with zero terminal SNR', () => {
    const config = { ...sdxl, rescale_betas_zero_snr: true, prediction_type: 'v_prediction' };
    const scheduler = createScheduler('pndm_trailing', config, 4);
    expect(scheduler.timesteps[0]).toBe(999);
    // At the last timestep v is minus the clean sample.
    const sample = scheduler.step(Float32Array.of(-0.25), Float32Array.of(-1.5), 0, noDraw);
    const { sigmas } = scheduler;
    const alpha = 1 / Math.sqrt((sigmas[1] ?? 0) ** 2 + 1);
    expect(sample[0]).toBeCloseTo(alpha * (0.25 - (sigmas[1] ?? 0) * 1.5), 3);
  });

  it('refuses a model that predicts clean samples', () => {
    expect(() => createScheduler('pndm', { ...sdxl, prediction_type: 'sample' }, 4)).toThrow(
      'scheduler_config.json cannot be used: prediction_type: must be one of',
    );
  });
});

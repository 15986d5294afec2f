import { describe, expect, it } from 'vitest';
import { createScheduler } from '../../src/schedulers/beta-schedulers.js';
import { alphasCumprod, noiseScheduleSchema, trainingSigmas } from '../../src/schedulers/noise-schedule.js';
import { sdxlSchedule as sdxl } from '../support/sdxl-schedule.js';

const noNoise = () => {
  throw new Error('Euler draws no noise');
};

describe('createScheduler', () => {
  it('names the schedulers there are when it does not know one', () => {
    expect(() => createScheduler('restart', sdxl, 4)).toThrow(
      'scheduler "restart" must be one of euler, euler_karras, euler_exponential, euler_beta, euler_trailing',
    );
  });

  it.each([
    [
      'a beta schedule',
      { beta_schedule: 'sigmoid' },
      /scheduler_config.json cannot be used: beta_schedule: must be one of /,
    ],
    ['a prediction type', { prediction_type: 'flow' }, /prediction_type: must be one of /],
    [
      'a class',
      { _class_name: 'EDMEulerScheduler' },
      /cannot be used: _class_name: "EDMEulerScheduler" is not a scheduler that is known here/,
    ],
  ])('refuses %s that it does not know, by its name', (_, config, message) => {
    expect(() => createScheduler('euler', { ...sdxl, ...config }, 4)).toThrow(message);
  });

  it('reads the configuration of another sampler over betas, without its options', () => {
    const other = { ...sdxl, _class_name: 'DPMSolverMultistepScheduler', solver_order: 2, thresholding: false };
    expect(createScheduler('euler', other, 4).timesteps).toEqual(Float32Array.of(751, 501, 251, 1));
  });

  it('refuses more steps than the checkpoint trained with, where they are taken from its timesteps', () => {
    expect(createScheduler('euler', sdxl, 1000).timesteps).toHaveLength(1000);
    expect(() => createScheduler('euler', sdxl, 1001)).toThrow(
      'steps 1001 must be <= 1000, what the checkpoint trained with',
    );
  });
});

describe('EulerDiscrete', () => {
  // The defaults of the released SDXL configuration are checked against diffusers in test/conformance.
  it('spaces linspace timesteps from end to end, and scales noise by the largest sigma', () => {
    const scheduler = createScheduler('euler', { ...sdxl, timestep_spacing: 'linspace' }, 4);
    expect(scheduler.timesteps).toEqual(Float32Array.of(999, 666, 333, 0));
    expect(scheduler.initNoiseSigma).toBe(scheduler.sigmas[0]);
  });

  it('ends at sigma_min where the configuration says so', () => {
    const training = trainingSigmas(alphasCumprod(noiseScheduleSchema.parse(sdxl)));
    const scheduler = createScheduler('euler', { ...sdxl, final_sigmas_type: 'sigma_min' }, 4);
    expect(scheduler.sigmas.at(-1)).toBe(Math.fround(training[0] ?? 0));
  });

  it('reaches zero terminal SNR when betas are rescaled', () => {
    const alphas = alphasCumprod(noiseScheduleSchema.parse({ ...sdxl, rescale_betas_zero_snr: true }));
    expect(alphas.at(-1)).toBe(2 ** -24);
    expect(alphas[0]).toBeCloseTo(alphasCumprod(noiseScheduleSchema.parse(sdxl))[0] ?? 0, 6);
    const scheduler = createScheduler(
      'euler',
      { ...sdxl, rescale_betas_zero_snr: true, timestep_spacing: 'trailing' },
      4,
    );
    expect(scheduler.timesteps[0]).toBe(999);
    expect(scheduler.sigmas[0]).toBeCloseTo(4096, 0);
  });

  it('interpolates sigmas evenly in their logarithm with log_linear, down to the least and not to zero', () => {
    const { sigmas } = createScheduler('euler', { ...sdxl, interpolation_type: 'log_linear' }, 5);
    const ratios = [0, 1, 2, 3, 4].map((i) => (sigmas[i + 1] ?? 0) / (sigmas[i] ?? 1));
    for (const ratio of ratios) expect(ratio).toBeCloseTo(ratios[0] ?? 0, 5);
    // diffusers at 58eb52c0: EulerDiscreteScheduler(**sdxl, interpolation_type='log_linear').set_timesteps(5); .sigmas[[0, 5]]
    expect(sigmas[0]).toBeCloseTo(14.614647, 4);
    expect(sigmas[5]).toBeCloseTo(0.02916754, 6);
    expect(sigmas).toHaveLength(6);
  });

  it('rounds as torch does at a sigma of 4096', () => {
    const options = { rescale_betas_zero_snr: true, timestep_spacing: 'trailing', prediction_type: 'v_prediction' };
    const scheduler = createScheduler('euler', { ...sdxl, ...options }, 1);
    const [output, sample] = [Float32Array.of(0.3, -0.7), Float32Array.of(7000.3, -100.7)];
    // diffusers at 58eb52c0, the same options: set_timesteps(1); step(output, timesteps[0], sample).prev_sample
    expect([...scheduler.step(output, sample, 0, noNoise)]).toEqual([-0.2998046875, 0.6999969482421875]);
  });

  it('takes sigma_min and sigma_max as the ends of Karras spacing', () => {
    const { sigmas } = createScheduler('euler_karras', { ...sdxl, sigma_min: 0.1, sigma_max: 10 }, 6);
    expect([sigmas[0], sigmas[5], sigmas[6]]).toEqual([10, Math.fround(0.1), 0]);
  });

  it('moves straight to the clean sample where the model predicts it', () => {
    const scheduler = createScheduler('euler', { ...sdxl, prediction_type: 'sample' }, 1);
    expect([...scheduler.step(Float32Array.of(0.25), Float32Array.of(8), 0, noNoise)][0]).toBeCloseTo(0.25, 6);
  });
});

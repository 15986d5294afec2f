import { describe, expect, it } from 'vitest';
import { createScheduler, schedulerNamed, schedulerNames } from '../../src/schedulers/beta-schedulers.js';

describe('schedulerNames', () => {
  it.each(['euler', 'euler_ancestral', 'dpmpp_2m', 'unipc', 'ddim'])(
    '%s_trailing is it with trailing spacing',
    (name) => {
      const config = {
        beta_start: 0.00085,
        beta_end: 0.012,
        beta_schedule: 'scaled_linear',
        timestep_spacing: 'leading',
      };
      const trailing = createScheduler(`${name}_trailing`, config, 4);
      expect([...trailing.timesteps]).toEqual([999, 749, 499, 249]);
      expect([...trailing.sigmas]).toEqual([
        ...createScheduler(name, { ...config, timestep_spacing: 'trailing' }, 4).sigmas,
      ]);
    },
  );
});

describe('schedulerNamed', () => {
  it.each([
    ['euler', 'euler'],
    ['EULER', 'euler'],
    ['Euler a', 'euler_ancestral'],
    ['EulerAncestralDiscreteScheduler', 'euler_ancestral'],
    ['DPM++ 2M', 'dpmpp_2m'],
    ['DPM++ 2M Karras', 'dpmpp_2m_karras'],
    ['dpmpp_2m_sde_gpu', 'dpmpp_2m_sde'],
    ['DPM++ 2M SDE Karras', 'dpmpp_2m_sde_karras'],
    ['DPM++ 3M SDE', 'dpmpp_3m_sde'],
    ['DPM++ 3M SDE Exponential', 'dpmpp_3m_sde_exponential'],
    ['dpmpp_3m_sde_gpu', 'dpmpp_3m_sde'],
    ['DPM++ SDE', 'dpmpp_sde'],
    ['DPM++ SDE Karras', 'dpmpp_sde_karras'],
    ['DPMSolverSDEScheduler', 'dpmpp_sde'],
    ['uni_pc', 'unipc'],
    ['UniPCMultistepScheduler', 'unipc'],
    ['PNDMScheduler', 'pndm'],
    ['PLMS', 'pndm'],
    ['DDIM', 'ddim'],
    ['LCM', 'lcm'],
    ['Heun', 'heun'],
    ['DPM2 Karras', 'dpm2_karras'],
    ['LMS Karras', 'lms_karras'],
    ['restart', undefined],
    ['', undefined],
  ])('"%s" means %s', (name, scheduler) => {
    expect(schedulerNamed(name, schedulerNames)).toBe(scheduler);
  });
});

import { describe, expect, it } from 'vitest';
import { schedulerNamed, schedulerNames } from '../../src/schedulers/index.js';

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
    ['uni_pc', 'unipc'],
    ['UniPCMultistepScheduler', 'unipc'],
    ['DDIM', 'ddim'],
    ['LCM', 'lcm'],
    ['heun', undefined],
    ['', undefined],
  ])('"%s" means %s', (name, scheduler) => {
    expect(schedulerNamed(name, schedulerNames)).toBe(scheduler);
  });
});

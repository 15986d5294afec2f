import { describe, expect, it } from 'vitest';
import { schedulerNames } from '../../src/schedulers/beta-schedulers.js';
import {
  createFlowScheduler,
  flowSchedulerNamed,
  flowSchedulerNames,
  flowShiftOf,
} from '../../src/schedulers/flow-schedulers.js';
import type { Draw } from '../../src/schedulers/scheduler.js';

// Trajectories are checked against diffusers and WAN's own code in test/conformance; these are the rules around them.
const noDraw = () => {
  throw new Error('a flow sampler draws no noise');
};

/** The same noise again keeps a sample on its line; the others draw none. */
function drawing(name: string, noise: number): Draw {
  return name === 'flow_lcm' ? () => Float32Array.of(noise) : noDraw;
}

describe('flow schedulers', () => {
  it('are listed apart from those of SDXL', () => {
    expect(flowSchedulerNames).toEqual(['flow_unipc', 'flow_unipc_diffusers', 'flow_euler', 'flow_lcm']);
    expect(schedulerNames.filter((name) => name.includes('flow'))).toEqual([]);
  });

  it.each(flowSchedulerNames)('%s follows a straight flow to its clean sample', (name) => {
    const [clean, noise] = [0.25, -1.5];
    const scheduler = createFlowScheduler(name, { shift: 5, steps: 5 });
    let sample = scheduler.addNoise(Float32Array.of(clean), Float32Array.of(noise), 0);
    for (let i = 0; i < 5; i += 1)
      sample = scheduler.step(Float32Array.of(noise - clean), sample, i, drawing(name, noise));
    expect(sample[0]).toBeCloseTo(clean, 5);
  });

  it.each(flowSchedulerNames)('%s begins at any step', (name) => {
    const scheduler = createFlowScheduler(name, { shift: 3, steps: 4 });
    let sample = scheduler.addNoise(Float32Array.of(1), Float32Array.of(0.5), 2);
    expect(sample[0]).toBeCloseTo(1 - (scheduler.sigmas[2] ?? 0) / 2, 6);
    for (const i of [2, 3]) sample = scheduler.step(Float32Array.of(-0.5), sample, i, drawing(name, 0.5));
    expect(sample[0]).toBeCloseTo(1, 5);
  });

  it.each([
    ['UniPC', 'flow_unipc'],
    ['FlowUniPCMultistepScheduler', 'flow_unipc'],
    ['UniPCMultistepScheduler', 'flow_unipc_diffusers'],
    ['euler', 'flow_euler'],
    ['Flow Euler', 'flow_euler'],
    ['LCM', 'flow_lcm'],
    ['FlowMatchLCMScheduler', 'flow_lcm'],
    ['FlowMatchEulerDiscreteScheduler', 'flow_euler'],
    ['dpmpp_2m', undefined],
  ])('%s means %s', (given, name) => {
    expect(flowSchedulerNamed(given)).toBe(name);
  });

  it.each([
    ['euler', 5, 4, 'scheduler "euler" must be one of flow_unipc, flow_unipc_diffusers, flow_euler, flow_lcm'],
    [
      'constructor',
      5,
      4,
      'scheduler "constructor" must be one of flow_unipc, flow_unipc_diffusers, flow_euler, flow_lcm',
    ],
    ['flow_unipc', 5, 0, 'steps 0 must be a whole number >= 1'],
    ['flow_unipc', 5, 1.5, 'steps 1.5 must be a whole number >= 1'],
    ['flow_euler', 0, 4, 'shift 0 must be > 0'],
    ['flow_euler', Number.NaN, 4, 'shift NaN must be > 0'],
  ])('refuses %s with shift %d and %d steps', (name, shift, steps, message) => {
    expect(() => createFlowScheduler(name, { shift, steps })).toThrow(message);
  });

  it.each([
    [{ flow_shift: 3, shift: 8 }, 3],
    [{ shift: 8 }, 8],
    [{}, undefined],
  ])('reads the shift of %j', (config, shift) => {
    expect(flowShiftOf(config)).toBe(shift);
  });

  it('refuses a shift that is no positive number', () => {
    expect(() => flowShiftOf({ flow_shift: -1 })).toThrow(
      'scheduler_config.json cannot be used: flow_shift: must be > 0',
    );
  });
});

describe('a step of first order', () => {
  it.each(['flow_unipc', 'flow_euler'])('of %s takes an infinity for what it is', (name) => {
    const scheduler = createFlowScheduler(name, { shift: 3, steps: 4 });
    const next = scheduler.step(Float32Array.of(Number.POSITIVE_INFINITY, 1), Float32Array.of(1, 1), 0, () => {
      throw new Error('draws noise');
    });
    expect([...next].map(Number.isNaN)).toEqual([false, false]);
    expect(next[0]).toBe(Number.NEGATIVE_INFINITY);
  });
});

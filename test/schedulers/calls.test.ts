import { describe, expect, it } from 'vitest';
import { plannedForwards } from '../../src/pipelines/common/guidance.js';
import { callsInStep, createScheduler, firstCallOf, schedulerNames } from '../../src/schedulers/beta-schedulers.js';

const steps = 6;
const request = { width: 64, height: 64, steps, guidanceScale: 5, prompt: '', negativePrompt: '', seeds: [0] };
const calls = (scheduler: string, from: number) => createScheduler(scheduler, {}, steps).timesteps.length - from;

describe.each(schedulerNames)('the calls of %s', (scheduler) => {
  it('in all steps, of which the last has one, are those of its timesteps', () => {
    const before = Array.from({ length: steps - 1 }, (_, step) => callsInStep(scheduler, step));
    expect(before.reduce<number>((sum, count) => sum + count, 1)).toBe(calls(scheduler, 0));
    expect(createScheduler(scheduler, {}, 1).timesteps).toHaveLength(1);
  });

  it.each([0, 1, 4, 5])('from step %i on are those that its cost is planned by', (step) => {
    const init = { rgb: new Uint8Array(64 * 64 * 3), strength: (steps - step) / steps };
    const left = calls(scheduler, firstCallOf(scheduler, step));
    expect(plannedForwards({ ...request, scheduler, ...(step > 0 && { init }) })).toBe(2 * left);
  });
});

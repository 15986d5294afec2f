import { createFlowScheduler } from '../../src/schedulers/flow-schedulers.js';
import type { Expected } from './golden-folder.js';
import { type Case, type CaseResult, judge } from './report.js';

export interface FlowScheduleCase {
  /** The reference it was taken from, in words. */
  readonly kind: string;
  readonly shift: number;
  readonly steps: number;
  readonly key: string;
}

const NAMES: Readonly<Record<string, string>> = {
  'UniPC flow (diffusers)': 'flow_unipc_diffusers',
  'FlowUniPC (original code)': 'flow_unipc',
  FlowMatchEuler: 'flow_euler',
};

export function flowScheduleCases(cases: readonly FlowScheduleCase[], expected: Expected): readonly Case[] {
  return cases.map((entry) => ({ name: `sched.${entry.key}`, run: () => flowScheduleCase(entry, expected) }));
}

/** A schedule's tables and its trajectory under a stand-in model: 0.7 tanh(x) + 0.1 sin(t / 50). */
function flowScheduleCase({ kind, shift, steps, key }: FlowScheduleCase, expected: Expected): CaseResult {
  const name = `sched.${key}`;
  const family = NAMES[kind];
  if (family === undefined) return { name, outcome: 'skipped', detail: `the scheduler ${kind} is not served yet` };
  const scheduler = createFlowScheduler(family, { shift, steps });
  let sample: Float32Array = Float32Array.from(expected.get(`${key}.x0`));
  const trajectory = new Float32Array(steps * sample.length);
  for (const [i, t] of scheduler.timesteps.entries()) {
    const drift = 0.1 * Math.sin(t / 50);
    const output = scheduler.scaleModelInput(sample, i).map((value) => 0.7 * Math.tanh(value) + drift);
    sample = scheduler.step(output, sample, i, (size) => new Float32Array(size));
    trajectory.set(sample, i * sample.length);
  }
  return judge(name, [
    { what: 'timesteps', actual: scheduler.timesteps, expected: expected.get(`${key}.t`), tolerance: 'schedule' },
    { what: 'sigmas', actual: scheduler.sigmas, expected: expected.get(`${key}.sigmas`), tolerance: 'schedule' },
    { what: 'trajectory', actual: trajectory, expected: expected.get(`${key}.x`), tolerance: 'schedule' },
  ]);
}

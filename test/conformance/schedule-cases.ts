import { TorchCpuGenerator } from '../../src/random/torch-cpu.js';
import { createScheduler, schedulerNames } from '../../src/schedulers/beta-schedulers.js';
import { type Expected, hashInput } from './golden-folder.js';
import { type CaseResult, type Comparison, judge } from './report.js';

export interface ScheduleCase {
  readonly name: string;
  readonly steps: number;
  /** Of the noise that the sampler adds. */
  readonly seed?: number;
  readonly config: Readonly<Record<string, unknown>>;
  readonly key: string;
  readonly initial: unknown[];
}

/** A scheduler's tables and its trajectory under a stand-in model: 0.7 tanh(scaled input) + 0.1 sin(t / 50). */
export function scheduleCase(
  { name, steps, seed = 0, config, key, initial }: ScheduleCase,
  expected: Expected,
): CaseResult {
  // Spacing and prediction type stand in the configuration: "euler_trailing" is Euler with another one.
  const family = schedulerNames.find((known) => name === known) ?? name.replace(/_(trailing|vpred|linspace)$/, '');
  if (!schedulerNames.includes(family)) {
    return { name: key, outcome: 'skipped', detail: `the scheduler ${name} is not served yet` };
  }
  const scheduler = createScheduler(family, config, steps);
  let sample: Float32Array = hashInput(initial).map((value) => value * Math.sqrt(3) * scheduler.initNoiseSigma);
  const generator = new TorchCpuGenerator(seed);
  const trajectory = new Float32Array(scheduler.timesteps.length * sample.length);
  for (const [i, t] of scheduler.timesteps.entries()) {
    const shift = 0.1 * Math.sin(t / 50);
    const output = scheduler.scaleModelInput(sample, i).map((value) => 0.7 * Math.tanh(value) + shift);
    sample = scheduler.step(output, sample, i, (size) => generator.randn(size));
    trajectory.set(sample, i * sample.length);
  }
  const comparisons: Comparison[] = [
    { what: 'timesteps', actual: scheduler.timesteps, expected: expected.get(`${key}.t`), tolerance: 'schedule' },
    { what: 'trajectory', actual: trajectory, expected: expected.get(`${key}.x`), tolerance: 'schedule' },
  ];
  const sigmas = expected.find(`${key}.sigmas`);
  // A sampler that has no noise levels of its own has one zero there.
  if (sigmas !== undefined && sigmas.length > 1) {
    comparisons.push({ what: 'sigmas', actual: scheduler.sigmas, expected: sigmas, tolerance: 'schedule' });
  }
  return judge(key, comparisons);
}

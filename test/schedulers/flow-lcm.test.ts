import { describe, expect, it } from 'vitest';
import { TorchCpuGenerator } from '../../src/random/torch-cpu.js';
import { createFlowScheduler } from '../../src/schedulers/flow-schedulers.js';

/**
 * Steps of diffusers 0.42.1's FlowMatchLCMScheduler(shift=5) over 4 steps, its noise drawn from torch.Generator().manual_seed(5), from
 * sin(1.3 i) * 1.5 with the velocity 0.7 tanh(x) + 0.1 sin(t / 50).
 */
const STEPS = [
  [
    ...[1.6677374, 0.53774202, -1.5367796, -1.6001941, 1.7640487, -0.24318345, -0.049100764, -1.3007867],
    ...[0.28858948, -0.077162661, -1.2171681, -0.59640485, 0.89494294, -0.45974964, -0.57674974, -0.68345296],
  ],
  [
    ...[2.3135226, 0.95582867, -0.49599448, -0.96301246, 0.25158811, -0.4417946, 0.1146351, -0.30435395],
    ...[-0.26705438, 0.5666815, -0.21925052, -1.513216, 1.2038949, 0.31747547, 0.12506482, 1.1825325],
  ],
  [
    ...[1.7018257, 0.48247769, -0.28605574, -0.64707983, 0.10323286, -0.28907612, 0.010341586, -0.279396],
    ...[-0.20480372, 0.25502399, -0.16325623, -1.1401899, 0.65277201, 0.08572793, -0.020231344, 0.63802993],
  ],
  [
    ...[1.6846906, 0.4736723, -0.2824415, -0.63848901, 0.10032959, -0.28541431, 0.0090195704, -0.27588692],
    ...[-0.20249707, 0.24961247, -0.16163601, -1.1274159, 0.64182514, 0.083121143, -0.021030925, 0.62725353],
  ],
];

describe('flow_lcm', () => {
  it('goes the steps of the reference, with its noise', () => {
    const scheduler = createFlowScheduler('flow_lcm', { shift: 5, steps: 4 });
    const generator = new TorchCpuGenerator(5);
    let sample = Float32Array.from({ length: 16 }, (_, i) => Math.sin(1.3 * i) * 1.5);
    for (const [i, expected] of STEPS.entries()) {
      const drift = 0.1 * Math.sin((scheduler.timesteps[i] ?? 0) / 50);
      const velocity = sample.map((x) => 0.7 * Math.tanh(x) + drift);
      sample = Float32Array.from(scheduler.step(velocity, sample, i, (count) => generator.randn(count)));
      for (const [j, value] of expected.entries()) expect(sample[j], `step ${i}, ${j}`).toBeCloseTo(value, 5);
    }
  });

  it('ends in the clean sample, without noise', () => {
    const scheduler = createFlowScheduler('flow_lcm', { shift: 1, steps: 1 });
    const never = () => {
      throw new Error('noise was drawn');
    };
    expect(scheduler.step(Float32Array.of(2), Float32Array.of(3), 0, never)).toEqual(Float32Array.of(1));
  });
});

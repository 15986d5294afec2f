/**
 * npm run bench -- thresholding [--rounds 5]
 *
 * What the arithmetic of a guided step takes beside the networks, with dynamic thresholding and without, at the released sizes.
 */
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { guideThresholded } from '../../src/pipelines/common/guidance.js';
import type { DynamicThresholding, GenerationRequest } from '../../src/pipelines/pipeline.js';
import { TorchCpuGenerator } from '../../src/random/torch-cpu.js';
import { median, print, row, stopwatch } from './stopwatch.js';

const { values: options } = parseArgs({ options: { rounds: { type: 'string', default: '5' } } });
const sizes = [
  { what: 'SDXL 1024x1024', channels: 4, area: 128 * 128 },
  { what: 'WAN 832x480, 81', channels: 16, area: 21 * 60 * 104 },
];
const ways: readonly (readonly [string, DynamicThresholding | undefined])[] = [
  ['plain', undefined],
  ['percentile 1', { mimicScale: 7, percentile: 1 }],
  ['percentile 0.95', { mimicScale: 7, percentile: 0.95 }],
];
const request: GenerationRequest = {
  ...{ prompt: '', negativePrompt: '', width: 0, height: 0, steps: 1, guidanceScale: 12, scheduler: '', seeds: [0] },
};

print(`${cpus()[0]?.model}, Node ${process.version}`);
const generator = new TorchCpuGenerator(0);
for (const { what, channels, area } of sizes) {
  const [negative, prompt, input] = [0, 1, 2].map(() => generator.randn(channels * area)) as Three;
  for (const [name, dynamicThresholding] of ways) {
    const sample = { input, sigma: 0.7, prediction: 'flow' } as const;
    const laps = Array.from({ length: Number(options.rounds) }, () => {
      const lap = stopwatch();
      guideThresholded(negative, prompt, { ...request, dynamicThresholding }, () => sample, channels);
      return lap();
    });
    row(`${what}: ${name}`.padEnd(32), median(laps));
  }
}

type Three = [Float32Array, Float32Array, Float32Array];

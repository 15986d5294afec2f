/**
 * npm run bench -- deep-cache [--model PATH] [--side 512] [--steps 6] [--threads 1]
 *
 * Error: images of the demo model with deep caching beside those without, and beside fewer whole steps, which cost as much.
 * Gain, with --model: CPU seconds of a whole run of the UNet and of one that reuses its deep features, with guidance.
 */
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import type { GenerationRequest } from '../../src/pipelines/pipeline.js';
import { createSdxlPipeline, type SdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';
import { openBackend } from '../../src/runtime/backend.js';
import { findAsset } from '../../src/synthetic/assets.js';
import { type Lap, median, print, row, stopwatch } from './stopwatch.js';

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    side: { type: 'string', default: '512' },
    steps: { type: 'string', default: '6' },
    threads: { type: 'string', default: '1' },
  },
});
const backend = await openBackend({ provider: 'cpu', threads: Number(options.threads) });
print(`${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, ${options.threads} threads`);
if (options.model === undefined) await measureError(await findAsset('demo-sdxl'));
else await measureGain(options.model);

async function measureError(path: string): Promise<void> {
  const [whole, steps] = [20, { 2: 13, 3: 11, 5: 9 } as Readonly<Record<number, number>>];
  const pipeline = await createSdxlPipeline({ path, backend });
  const prompts = [
    'red circle on a blue',
    'green star on a white',
    'yellow square on a black',
    'purple triangle on a green',
  ];
  const requests = prompts.flatMap((scene, i) =>
    [0, 1, 2].map((k) => ({ ...base(`a ${scene} background`, 128, whole), guidanceScale: 4, seeds: [3 * i + k] })),
  );
  const plain = await draw(pipeline, requests);
  const report = async (name: string, changes: Partial<GenerationRequest>) => {
    const images = await draw(
      pipeline,
      requests.map((request) => ({ ...request, ...changes })),
    );
    const errors = images.map((image, i) => meanDifference(image, plain[i] ?? new Uint8Array()));
    const mean = errors.reduce((sum, error) => sum + error, 0) / errors.length;
    print(
      `${name.padEnd(32)} mean difference ${mean.toFixed(2)} of 255, largest of an image ${Math.max(...errors).toFixed(2)}`,
    );
  };
  for (const interval of [2, 3, 5]) {
    await report(`interval ${interval}, ${whole} steps`, { deepCacheInterval: interval });
    await report(`whole, ${steps[interval]} steps`, { steps: steps[interval] ?? whole });
  }
  await pipeline.dispose();
}

async function measureGain(path: string): Promise<void> {
  const pipeline = await createSdxlPipeline({ path, backend });
  const request = {
    ...base('a lighthouse at dawn', Number(options.side), Number(options.steps)),
    deepCacheInterval: 2,
  };
  const laps: { whole: Lap[]; shallow: Lap[] } = { whole: [], shallow: [] };
  const lap = stopwatch();
  // The first two open the networks.
  for await (const event of pipeline.generate([{ request, signal: new AbortController().signal }])) {
    if (event.kind !== 'progress') continue;
    const spent = lap();
    if (event.phase === 'denoise' && event.step > 2) laps[event.step % 2 === 1 ? 'whole' : 'shallow'].push(spent);
  }
  const [whole, shallow] = [median(laps.whole), median(laps.shallow)];
  row('whole run', whole);
  row('run that reuses deep features', shallow);
  print(`ratio ${(shallow.cpu / whole.cpu).toFixed(3)}`);
  await pipeline.dispose();
}

function base(prompt: string, side: number, steps: number): GenerationRequest {
  return {
    ...{ prompt, negativePrompt: undefined, width: side, height: side, steps, guidanceScale: 6 },
    ...{ scheduler: 'euler', seeds: [1] },
  };
}

async function draw(pipeline: SdxlPipeline, requests: readonly GenerationRequest[]): Promise<readonly Uint8Array[]> {
  const images: Uint8Array[] = [];
  for (const request of requests)
    for await (const event of pipeline.generate([{ request, signal: new AbortController().signal }]))
      if (event.kind === 'image') images.push(event.rgb);
  return images;
}

function meanDifference(a: Uint8Array, b: Uint8Array): number {
  return a.reduce((sum, value, i) => sum + Math.abs(value - (b[i] ?? 0)), 0) / a.length;
}

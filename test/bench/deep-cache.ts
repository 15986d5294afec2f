/**
 * npm run bench -- deep-cache [--model PATH] [--side 512] [--steps 6] [--threads 1]
 *
 * Error: images of the demo model with deep caching beside those without, and beside fewer whole steps, which cost as much.
 * Gain, with --model: CPU seconds of a whole run of the UNet and of one that reuses its deep features, with guidance.
 */
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import type { GenerationRequest } from '../../src/pipelines/pipeline.js';
import { createSdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';
import { openBackend } from '../../src/runtime/backend.js';
import { findAsset } from '../../src/synthetic/assets.js';
import { demoRequests, describeDifference, draw, imageRequest } from './demo-images.js';
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
  const requests = demoRequests(whole);
  const plain = await draw(pipeline, requests);
  const report = async (name: string, changes: Partial<GenerationRequest>) => {
    const images = await draw(
      pipeline,
      requests.map((request) => ({ ...request, ...changes })),
    );
    print(`${name.padEnd(32)} ${describeDifference(images, plain)}`);
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
    ...imageRequest('a lighthouse at dawn', Number(options.side), Number(options.steps)),
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

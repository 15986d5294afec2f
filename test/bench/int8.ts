/**
 * npm run bench -- int8 [--model PATH] [--side 256] [--steps 4] [--threads 1] [--cache FOLDER]
 *
 * Linear layers in 8 bits beside float32, in one process. Error: images of the demo model. Gain, with --model: CPU seconds of loading and
 * of a step with guidance, and resident memory. Weights in 8 bits are kept in FOLDER; without it they are written anew.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createSdxlPipeline, type SdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';
import { openBackend } from '../../src/runtime/backend.js';
import { QuantisedLinears } from '../../src/runtime/model-cache/quantised-linears.js';
import { findAsset } from '../../src/synthetic/assets.js';
import { demoRequests, describeDifference, draw, imageRequest } from './demo-images.js';
import { type Lap, median, memoryRow, print, row, stopwatch } from './stopwatch.js';

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    side: { type: 'string', default: '256' },
    steps: { type: 'string', default: '4' },
    threads: { type: 'string', default: '1' },
    cache: { type: 'string' },
  },
});
const KINDS = ['float32', 'int8'] as const;
const temporary = await mkdtemp(join(tmpdir(), 'darkroom-bench-'));
const quantised = new QuantisedLinears({ folder: options.cache ?? temporary, maxBytes: 2 ** 40, log: print });
print(`${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, ${options.threads} threads`);
try {
  if (options.model === undefined) await measureError(await findAsset('demo-sdxl'));
  else await measureGain(options.model);
} finally {
  await rm(temporary, { recursive: true });
}

async function measureError(path: string): Promise<void> {
  const [plain, rounded] = [await drawAs('float32', path), await drawAs('int8', path)];
  print(`int8, 20 steps ${describeDifference(rounded, plain)}`);
}

async function drawAs(kind: (typeof KINDS)[number], path: string): Promise<readonly Uint8Array[]> {
  const pipeline = await open(kind, path);
  const images = await draw(pipeline, demoRequests(20));
  await pipeline.dispose();
  return images;
}

async function measureGain(path: string): Promise<void> {
  const steps: Record<string, Lap> = {};
  for (const kind of KINDS) {
    const lap = stopwatch();
    const pipeline = await open(kind, path);
    row(`${kind}: load`, lap());
    await memoryRow();
    const request = imageRequest('a lighthouse at dawn', Number(options.side), Number(options.steps));
    const laps: Lap[] = [];
    lap();
    for await (const event of pipeline.generate([{ request, signal: new AbortController().signal }])) {
      if (event.kind !== 'progress') continue;
      const spent = lap();
      if (event.phase === 'denoise') laps.push(spent);
    }
    const step = median(laps);
    steps[kind] = step;
    row(`${kind}: step`, step);
    await pipeline.dispose();
  }
  print(`ratio of the steps ${((steps.int8?.cpu ?? Number.NaN) / (steps.float32?.cpu ?? Number.NaN)).toFixed(3)}`);
}

async function open(kind: (typeof KINDS)[number], path: string): Promise<SdxlPipeline> {
  const backend = await openBackend({
    provider: 'cpu',
    threads: Number(options.threads),
    ...(kind === 'int8' && { quantised }),
  });
  return createSdxlPipeline({ path, backend });
}

/**
 * npm run bench -- load [--model PATH] [--tokenizer FOLDER] [--cache FOLDER] [--rounds 3] [--threads 1] [--runtime auto]
 *
 * Loads an SDXL on the CPU with and without a model cache (MODEL_CACHE_DIR), its matrices packed and mapped (CPU_WEIGHTS), in turns,
 * and makes one 256x256 image of two steps with each: CPU seconds (user + system of the process), resident memory, and whether the
 * images are equal to the last bit. The first load with each cache writes it. Without --model it makes one of the released size from
 * hash weights. That needs 15 GB of memory and, with its cache, 60 GB of the disk.
 */
import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createSdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';
import { openBackend } from '../../src/runtime/backend.js';
import { ModelCache } from '../../src/runtime/model-cache/model-cache.js';
import { runtimeNames } from '../../src/runtime/runtime-names.js';
import { writeSyntheticSdxl } from '../../src/synthetic/sdxl.js';
import { print, residentMemory, row, stopwatch } from './stopwatch.js';

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    tokenizer: { type: 'string' },
    cache: { type: 'string' },
    rounds: { type: 'string', default: '3' },
    threads: { type: 'string', default: '1' },
    runtime: { type: 'string', default: 'auto' },
  },
});
const runtime = runtimeNames.find((name) => name === options.runtime);
if (runtime === undefined) throw new Error(`runtime ${options.runtime} must be one of ${runtimeNames.join(', ')}`);

const request = {
  prompt: 'a red circle on a blue background',
  negativePrompt: 'blurry',
  width: 256,
  height: 256,
  steps: 2,
  guidanceScale: 6,
  scheduler: 'euler',
  seeds: [1],
};

const temporary = await mkdtemp(join(tmpdir(), 'darkroom-bench-'));
try {
  const path = options.model ?? (await writeSyntheticSdxl(join(temporary, 'sdxl'), 'sdxl-base'));
  const threads = Number(options.threads);
  const cache = new ModelCache({ folder: options.cache ?? join(temporary, 'cache'), maxBytes: 2 ** 40, log: print });
  print(`${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, ${threads} threads`);
  const images = { packed: new Set<string>(), mapped: new Set<string>() };
  const load = async (what: string, weights: keyof typeof images, used?: ModelCache) => {
    const packsWeights = weights === 'packed';
    const backend = await openBackend({ provider: 'cpu', threads, runtime, packsWeights, cache: used });
    const lap = stopwatch();
    const pipeline = await createSdxlPipeline({ path, tokenizer: options.tokenizer, backend });
    row(what, lap());
    print(`  resident, of that not of files   ${await resident()}`);
    for await (const event of pipeline.generate([{ request, signal: new AbortController().signal }])) {
      if (event.kind === 'image') images[weights].add(createHash('sha256').update(event.rgb).digest('hex'));
      if (event.kind === 'progress') row(`  ${event.phase}`, lap());
    }
    print(`  after the image                  ${await resident()}`);
    await pipeline.dispose();
  };
  for (let round = 0; round < Number(options.rounds); round += 1) {
    await load('packed, without cache', 'packed');
    await load('packed, with cache', 'packed', cache);
    await load('mapped, without cache', 'mapped');
    await load('mapped, with cache', 'mapped', cache);
  }
  for (const [weights, { size }] of Object.entries(images)) {
    print(`${weights}: ${size === 1 ? 'all images are equal' : `${size} different images`}`);
  }
} finally {
  await rm(temporary, { recursive: true });
}

async function resident(): Promise<string> {
  const bytes = [await residentMemory('VmRSS'), await residentMemory('RssAnon')];
  return bytes.map((each) => `${(each / 2 ** 20).toFixed(0)} MiB`).join(', ');
}

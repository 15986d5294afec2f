/**
 * npm run bench -- lora [--sdxl PATH] [--side 256] [--steps 4] [--rank 16] [--runs 10] [--device cpu] [--threads 1]
 *
 * Runs the server as its users do, over an SDXL and two LoRAs of hash weights that change every attention layer: what the first use
 * of a LoRA takes, a job that switches between two that are there beside one of the bare model, and what a variant holds. Without
 * --sdxl the model is the tiny one.
 */
import { mkdir, mkdtemp, rm, stat } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type DarkroomClient, generate } from '../../src/client/client.js';
import type { JobMetadata } from '../../src/gen/darkroom/v1/job.js';
import { openSdxlCheckpoint } from '../../src/pipelines/sdxl/checkpoint/checkpoint.js';
import { sdxlLoraNames } from '../../src/pipelines/sdxl/lora-names.js';
import { writeTinySdxl } from '../../src/synthetic/sdxl.js';
import { writeHashSafetensors } from '../../src/synthetic/write-safetensors.js';
import { quantile, status, withServer } from './served.js';
import { figure, print } from './stopwatch.js';

const { values: options } = parseArgs({
  options: {
    sdxl: { type: 'string' },
    side: { type: 'string', default: '256' },
    steps: { type: 'string', default: '4' },
    rank: { type: 'string', default: '16' },
    runs: { type: 'string', default: '10' },
    device: { type: 'string', default: 'cpu' },
    threads: { type: 'string', default: '1' },
  },
});
const side = Number(options.side);
const NAMES = ['one', 'two'] as const;

const folder = await mkdtemp(join(tmpdir(), 'darkroom-bench-'));
try {
  const model = options.sdxl ?? (await writeTinySdxl(join(folder, 'tiny-sdxl')));
  const bytes = await writeLoras(model);
  const what = options.sdxl ?? 'tiny SDXL, hash weights';
  print(
    `${cpus().length} x ${cpus()[0]?.model}, Node ${process.version}, ${options.device}, ${options.threads} threads; ${what}; LoRAs of rank ${options.rank}, ${(bytes / 1e6).toFixed(1)} MB each`,
  );
  const args = ['--sdxl', model, '--lora-dir', join(folder, 'loras'), '--device', options.device];
  await withServer(args, { ENGINE_THREADS: options.threads, LORA_VARIANTS: '2' }, measure);
} finally {
  await rm(folder, { recursive: true });
}

/** One file each, in kohya's names, of all attention layers. */
async function writeLoras(model: string): Promise<number> {
  const { config } = await openSdxlCheckpoint({ path: model });
  const rank = Number(options.rank);
  const tensors = [...sdxlLoraNames(config).weights]
    .filter(
      ([name, { module, shape }]) =>
        /^lora_(unet_(down|mid|up)_|te)/.test(name) && /attn/.test(module) && shape.length === 2,
    )
    .flatMap(([name, { shape }]): [string, number[]][] => [
      [`${name}.lora_down.weight`, [rank, shape[1] ?? 0]],
      [`${name}.lora_up.weight`, [shape[0] ?? 0, rank]],
    ]);
  await mkdir(join(folder, 'loras'));
  for (const name of NAMES) {
    await writeHashSafetensors(fileOf(name), { dtype: 'F16', hashPrefix: `${name}:`, tensors });
  }
  return (await stat(fileOf('one'))).size;
}

function fileOf(name: string): string {
  return join(folder, 'loras', `${name}.safetensors`);
}

async function measure(client: DarkroomClient): Promise<void> {
  await make(client, undefined, 0);
  const bareBytes = await residentBytes(client);
  for (const [i, name] of NAMES.entries()) {
    const before = await residentBytes(client);
    const { buildSeconds } = await make(client, name, 0);
    figure(`first use of LoRA ${i + 1}: variant built`, buildSeconds, 's');
    figure(`resident memory that it added`, ((await residentBytes(client)) - before) / 2 ** 20, 'MiB');
  }
  figure('resident memory of the bare model', bareBytes / 2 ** 20, 'MiB');
  const [bare, switching]: [number[], number[]] = [[], []];
  // In turn, so that other work on the machine hits both; every job is of another variant than the one before.
  for (let run = 1; run <= Number(options.runs); run += 1) {
    bare.push((await make(client, undefined, run)).generationSeconds);
    for (const name of NAMES) switching.push((await make(client, name, run)).generationSeconds);
  }
  figure('a job of the bare model', quantile(bare, 0.5), 's', `median of ${bare.length}`);
  figure(
    'a job that switches to a variant that is there',
    quantile(switching, 0.5),
    's',
    `median of ${switching.length}`,
  );
  figure('of that', quantile(switching, 0.5) / quantile(bare, 0.5), '');
}

async function make(client: DarkroomClient, lora: string | undefined, seed: number): Promise<JobMetadata> {
  const loras = lora === undefined ? [] : [{ name: lora, weight: 0.5, textEncoderWeight: undefined }];
  const size = { width: side, height: side, steps: Number(options.steps) };
  const request = { ...size, prompt: `a red circle, number ${seed}`, seed: BigInt(seed), loras };
  for await (const { event } of generate(client, request)) {
    if (event?.$case === 'completed' && event.value.metadata !== undefined) return event.value.metadata;
  }
  throw new Error('a job ended with nothing');
}

async function residentBytes(client: DarkroomClient): Promise<number> {
  return Number((await status(client)).models[0]?.residentBytes ?? 0);
}

/**
 * npm run bench -- turns [--json] [--sdxl PATH] [--wan PATH] [--device cpu] [--images 5] [--side 256] [--steps 15] [--frames 33] [--clip-steps 40]
 *
 * Serves SDXL and WAN on one device and measures what an image waits while a clip renders, and what the clip loses, under each value
 * of GPU_TURNS. The figures of one policy come from one server; all of them from one run. Without paths the models are the tiny ones.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type DarkroomClient, generate } from '../../src/client/client.js';
import { turnPolicies } from '../../src/device.js';
import { Phase } from '../../src/gen/darkroom/v1/event.js';
import type { GenerateRequest } from '../../src/gen/darkroom/v1/inference_service.js';
import { JobType } from '../../src/gen/darkroom/v1/job.js';
import { writeTinySdxl } from '../../src/synthetic/sdxl.js';
import { writeSyntheticWan } from '../../src/synthetic/wan.js';
import { quantile, status, withServer } from './served.js';

const { values: options } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    sdxl: { type: 'string' },
    wan: { type: 'string' },
    device: { type: 'string', default: 'cpu' },
    images: { type: 'string', default: '5' },
    side: { type: 'string', default: '256' },
    steps: { type: 'string', default: '15' },
    frames: { type: 'string', default: '33' },
    'clip-steps': { type: 'string', default: '40' },
  },
});

interface Row {
  readonly policy: string;
  /** Images that were made while the clip rendered. */
  readonly images: number;
  /** Median time of an image with nothing else on the device, in s. */
  readonly image: number;
  /** The same while a clip renders. */
  readonly imageBesideClip: number;
  /** Median time from an image's call to its first denoising step while a clip renders, in s. */
  readonly firstStep: number;
  /** Time of a step of the clip with nothing else on the device, in s. */
  readonly clipStep: number;
  readonly clip: number;
  readonly clipBesideImages: number;
}

const side = Number(options.side);
const image = { prompt: 'a red circle on a blue background', width: side, height: side, steps: Number(options.steps) };
const clip = {
  ...{ prompt: 'waves below a lighthouse', jobType: JobType.JOB_TYPE_VIDEO_FAST, seed: 1n },
  ...{ width: side, height: side, frames: Number(options.frames), steps: Number(options['clip-steps']) },
};

const folder = await mkdtemp(join(tmpdir(), 'darkroom-bench-'));
const rows: Row[] = [];
try {
  const sdxl = options.sdxl ?? (await writeTinySdxl(join(folder, 'sdxl')));
  const wan = options.wan ?? (await writeSyntheticWan(join(folder, 'wan'), 'wan-tiny'));
  for (const policy of turnPolicies) {
    const args = ['--sdxl', sdxl, '--wan', wan, '--device', options.device];
    await withServer(args, { GPU_TURNS: policy }, async (client) => {
      while ((await status(client)).models.some(({ device }) => device === ''))
        await new Promise((resolve) => setTimeout(resolve, 20));
      rows.push(await measure(client, policy));
    });
  }
} finally {
  await rm(folder, { recursive: true });
}
print();

async function measure(client: DarkroomClient, policy: string): Promise<Row> {
  // The first ones warm up.
  await run(client, { ...image, seed: 1n });
  await run(client, { ...clip, steps: 2 });
  const alone = await images(client);
  const { seconds: clipAlone } = await run(client, clip);
  let hasBegun: () => void = () => undefined;
  const begun = new Promise<void>((resolve) => {
    hasBegun = resolve;
  });
  let isRendering = true;
  const rendering = run(client, clip, hasBegun).finally(() => {
    isRendering = false;
  });
  await begun;
  const beside = await images(client, () => isRendering);
  return {
    policy,
    images: beside.length,
    image: quantile(
      alone.map(({ seconds }) => seconds),
      0.5,
    ),
    imageBesideClip: quantile(
      beside.map(({ seconds }) => seconds),
      0.5,
    ),
    firstStep: quantile(
      beside.map(({ firstStep }) => firstStep),
      0.5,
    ),
    clipStep: clipAlone / clip.steps,
    clip: clipAlone,
    clipBesideImages: (await rendering).seconds,
  };
}

/** @param goes false: an image that ends now does not count */
async function images(client: DarkroomClient, goes: () => boolean = () => true): Promise<readonly Timing[]> {
  const timings: Timing[] = [];
  for (let i = 0; i < Number(options.images); i += 1) {
    const timing = await run(client, { ...image, seed: BigInt(i + 2) });
    if (goes()) timings.push(timing);
  }
  return timings;
}

interface Timing {
  readonly seconds: number;
  /** Seconds to the first denoising step. */
  readonly firstStep: number;
}

async function run(
  client: DarkroomClient,
  request: Partial<GenerateRequest>,
  onProgress: () => void = () => undefined,
): Promise<Timing> {
  const startedAt = performance.now();
  let firstStep = Number.NaN;
  for await (const { event } of generate(client, request)) {
    if (event?.$case !== 'progress') continue;
    if (Number.isNaN(firstStep) && event.value.phase === Phase.PHASE_DENOISE)
      firstStep = (performance.now() - startedAt) / 1000;
    onProgress();
  }
  return { seconds: (performance.now() - startedAt) / 1000, firstStep };
}

function print(): void {
  if (options.json) {
    process.stdout.write(`${JSON.stringify(rows, null, 2)}\n`);
    return;
  }
  process.stdout.write(
    '| GPU_TURNS | images beside the clip | image beside a clip / alone | first step after | clip beside images / alone | clip loses / images take |\n',
  );
  process.stdout.write('| --- | --- | --- | --- | --- | --- |\n');
  for (const row of rows) {
    const {
      policy,
      images: count,
      image: alone,
      imageBesideClip,
      firstStep,
      clipStep,
      clip: clipAlone,
      clipBesideImages,
    } = row;
    const lost = (clipBesideImages - clipAlone) / (count * alone);
    const cells = [
      policy,
      `${count}`,
      `${(imageBesideClip / alone).toFixed(2)}`,
      `${(firstStep / clipStep).toFixed(2)} steps of the clip`,
      `${(clipBesideImages / clipAlone).toFixed(2)}`,
      `${lost.toFixed(2)}`,
    ];
    process.stdout.write(`| ${cells.join(' | ')} |\n`);
  }
}

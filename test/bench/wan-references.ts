/**
 * npm run bench -- wan-references [--model PATH] [--width 128] [--height 128] [--frames 9] [--steps 20] [--seeds 3] [--strength 0.85]
 *
 * How near the first frame of a video comes to its start reference, by the model's own way and by held latents, at the same seeds.
 * The distance is to what the VAE makes of the reference by itself, the nearest that a video can come. Without --model it makes the
 * tiny VACE of hash weights.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { planarFrames } from '../../src/pipelines/common/frame-form.js';
import { imageFromRgb, rgbFromImage } from '../../src/pipelines/common/rgb-image.js';
import type { FrameMethod, GenerationRequest, KnownImages } from '../../src/pipelines/pipeline.js';
import { createWanPipeline, type WanPipeline } from '../../src/pipelines/wan/pipeline.js';
import { writeSyntheticWan } from '../../src/synthetic/wan.js';
import { cpuBackend } from '../support/cpu-backend.js';
import { gradient } from '../support/image.js';
import { print } from './stopwatch.js';

const { values: options } = parseArgs({
  options: {
    model: { type: 'string' },
    width: { type: 'string', default: '128' },
    height: { type: 'string', default: '128' },
    frames: { type: 'string', default: '9' },
    steps: { type: 'string', default: '20' },
    seeds: { type: 'string', default: '3' },
    strength: { type: 'string', default: '0.85' },
  },
});
const size = { width: Number(options.width), height: Number(options.height) };
const strength = Number(options.strength);

const folder = await mkdtemp(join(tmpdir(), 'darkroom-bench-'));
try {
  const path = options.model ?? (await writeSyntheticWan(join(folder, 'wan'), 'wan-vace-tiny'));
  const pipeline = await createWanPipeline({ path, backend: cpuBackend });
  const own = pipeline.info.frames?.method ?? 'latent_hold';
  const start = gradient(size);
  const nearest = await throughVae(pipeline, start);
  print(
    `${options.model ?? 'wan-vace-tiny, hash weights'}: ${options.seeds} seeds, ${options.steps} steps, strength ${strength}`,
  );
  print('| start reference by | first frame, off by (of 255) |');
  print('| ------------------ | ---------------------------- |');
  for (const method of [undefined, ...new Set<FrameMethod>(['latent_hold', own])]) {
    const known = method && { method, start, strength };
    const distances: number[] = [];
    for (let seed = 1; seed <= Number(options.seeds); seed += 1) {
      distances.push(meanDistance(await firstFrame(pipeline, seed, known), nearest));
    }
    const mean = distances.reduce((sum, distance) => sum + distance, 0) / distances.length;
    print(`| ${(method ?? 'none').padEnd(18)} | ${mean.toFixed(1).padEnd(28)} |`);
  }
  await pipeline.dispose();
} finally {
  await rm(folder, { recursive: true });
}

async function firstFrame(pipeline: WanPipeline, seed: number, known: KnownImages | undefined): Promise<Uint8Array> {
  const request: GenerationRequest = {
    prompt: 'a red kite over a field',
    negativePrompt: 'blurry',
    ...size,
    steps: Number(options.steps),
    guidanceScale: 5,
    scheduler: 'flow_unipc',
    seeds: [seed],
    video: { frames: Number(options.frames), shift: 5, known },
  };
  for await (const event of pipeline.generate([{ request, signal: new AbortController().signal }])) {
    if (event.kind === 'frames') return event.frames[0] ?? new Uint8Array();
  }
  throw new Error('a video without frames');
}

async function throughVae({ networks }: WanPipeline, rgb: Uint8Array): Promise<Uint8Array> {
  const latents = await networks.autoencoder.encodeLatents([imageFromRgb(rgb, size)], size);
  for await (const {
    frames: [frame = new Float32Array()],
  } of networks.autoencoder.decodeChunks(planarFrames, latents, { ...size, frames: 1 })) {
    return rgbFromImage(frame, size);
  }
  throw new Error('a picture that the VAE makes nothing of');
}

function meanDistance(a: Uint8Array, b: Uint8Array): number {
  return a.reduce((distance, value, i) => distance + Math.abs(value - (b[i] ?? 0)), 0) / a.length;
}

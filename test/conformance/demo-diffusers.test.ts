import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { GenerationRequest } from '../../src/pipelines/pipeline.js';
import { createSdxlPipeline, type SdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';
import { findAsset } from '../../src/synthetic/assets.js';
import { cpuBackend } from '../support/cpu-backend.js';
import { latentsOf } from '../support/latents-of.js';
import { Expected } from './golden-folder.js';
import { tolerances } from './report.js';

const SIZE = 128;
const folder = fileURLToPath(new URL('../fixtures/demo-diffusers/', import.meta.url));

interface Sampling {
  readonly key: string;
  readonly scheduler: string;
  readonly steps: number;
  readonly seed: number;
}

interface Cases {
  readonly text: readonly { readonly prompt: string; readonly seed: number }[];
  readonly inpaint: readonly (Sampling & { readonly strength: number })[];
  readonly schedulers: readonly Sampling[];
}
const cases = JSON.parse(await readFile(`${folder}cases.json`, 'utf8')) as Cases;

const request = (more: Partial<GenerationRequest>): GenerationRequest => ({
  prompt: 'a large red circle on a blue background',
  negativePrompt: undefined,
  width: SIZE,
  height: SIZE,
  steps: 15,
  guidanceScale: 4,
  scheduler: 'euler',
  seeds: [0],
  ...more,
});

let pipeline: SdxlPipeline;
beforeAll(async () => {
  pipeline = await createSdxlPipeline({ path: await findAsset('demo-sdxl'), backend: cpuBackend });
});
afterAll(() => pipeline.dispose());

describe('the demo model draws what diffusers draws with it', () => {
  it.each(cases.text)('$prompt, seed $seed', async ({ prompt, seed }) => {
    const job = { request: request({ prompt, seeds: [seed] }), signal: new AbortController().signal };
    let drawn: Uint8Array | undefined;
    for await (const event of pipeline.generate([job])) if (event.kind === 'image') drawn = event.rgb;
    const wanted = await sharp(`${folder}seed-${seed}.png`).raw().toBuffer();
    expect(drawn).toHaveLength(wanted.length);
    const worst = wanted.reduce((most, value, i) => Math.max(most, Math.abs(value - (drawn?.[i] ?? 0))), 0);
    expect(worst).toBeLessThanOrEqual(tolerances.picture.absolute);
  });
});

describe('inpainting', () => {
  const rgb = Uint8Array.from({ length: SIZE * SIZE * 3 }, (_, i) => {
    const [x, y] = [Math.floor(i / 3) % SIZE, Math.floor(i / 3 / SIZE)];
    return [2 * x, 2 * y, x + y][i % 3] as number;
  });
  const mask = Uint8Array.from({ length: SIZE * SIZE }, (_, i) =>
    ((i % SIZE) - 50) ** 2 + (Math.floor(i / SIZE) - 70) ** 2 < 40 ** 2 ? 255 : 0,
  );

  it.each(cases.inpaint)('ends at the latents of diffusers’ pipeline: $key', async ({ key, seed, ...more }) => {
    const { strength, scheduler, steps } = more;
    const latents = await latentsOf(
      pipeline,
      request({ scheduler, steps, seeds: [seed], init: { rgb, strength, mask } }),
    );
    await expectLatents(latents, 'inpaint', key);
  });
});

describe('a scheduler', () => {
  it.each(cases.schedulers)('ends at the latents of diffusers’ own: $key steps', async (sampling) => {
    const { key, scheduler, steps, seed } = sampling;
    await expectLatents(await latentsOf(pipeline, request({ scheduler, steps, seeds: [seed] })), 'schedulers', key);
  });
});

async function expectLatents(latents: Float32Array, file: string, key: string): Promise<void> {
  const wanted = (await Expected.read(`${folder}${file}.safetensors`)).floats(key);
  const largest = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const worst = wanted.reduce((most, value, i) => Math.max(most, Math.abs(value - (latents[i] ?? 0))), 0);
  expect(latents).toHaveLength(wanted.length);
  console.log(`${key}: largest error ${(worst / largest).toExponential(1)} of the largest value`);
  expect(worst / largest).toBeLessThan(tolerances.loop.relative);
}

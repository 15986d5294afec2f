import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { RunningJobs } from '../../../src/pipelines/common/running-jobs.js';
import type { GenerationRequest } from '../../../src/pipelines/pipeline.js';
import { originalUNetNames } from '../../../src/pipelines/sdxl/checkpoint/original-names.js';
import { readSdxlConfig } from '../../../src/pipelines/sdxl/checkpoint/read-config.js';
import { createSdxlPipeline, type SdxlPipeline } from '../../../src/pipelines/sdxl/pipeline.js';
import { encodePrompts } from '../../../src/pipelines/sdxl/prompt/encode-prompts.js';
import { planSdxlWeights } from '../../../src/pipelines/sdxl/weights.js';
import { writeHashSafetensors } from '../../../src/synthetic/write-safetensors.js';
import { Expected } from '../../conformance/golden-folder.js';
import { difference } from '../../conformance/report.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { latentsOf } from '../../support/latents-of.js';
import { resultOf } from '../../support/result-of.js';
import { sdxlImage } from '../../support/sdxl-image.js';
import { sdxlRequest as request } from '../../support/sdxl-requests.js';

const goldens = fileURLToPath(new URL('../../fixtures/goldens/sdxl-few-steps/expected.safetensors', import.meta.url));

let pipeline: SdxlPipeline;
beforeAll(async () => {
  pipeline = await createSdxlPipeline({ path: inject('wholeSdxl'), backend: cpuBackend });
});
afterAll(() => pipeline.dispose());

async function expectLatents(key: string, from: SdxlPipeline, more: Partial<GenerationRequest>): Promise<void> {
  const wanted = (await Expected.read(goldens)).floats(key);
  const { relative } = difference(await latentsOf(from, request(more)), wanted);
  console.log(`${key}: largest error ${relative.toExponential(1)}`);
  expect(relative).toBeLessThan(1e-5);
}

describe('few steps', () => {
  it.each([
    ['tcd', { scheduler: 'tcd', guidanceScale: 0 }],
    ['lcm', { scheduler: 'lcm', guidanceScale: 1 }],
    ['lcm_trailing', { scheduler: 'lcm_trailing', guidanceScale: 1 }],
    ['euler_trailing', { scheduler: 'euler_trailing', guidanceScale: 0 }],
  ])('end at the latents of diffusers: %s', (key, more) => expectLatents(key, pipeline, more));

  it.each([0, 0.5, 1])('cost one row of the UNet each at guidance scale %d', async (guidanceScale) => {
    const job = request({ guidanceScale, negativePrompt: 'blur' });
    const running = new RunningJobs([{ request: job, signal: new AbortController().signal }]);
    const conditioning = await resultOf(encodePrompts(0, job, running, pipeline.networks.prompts, true));
    expect(conditioning?.rows).toHaveLength(1);
  });
});

describe('guidance rescale', () => {
  it.each([
    ['rescale_0.7', { guidanceRescale: 0.7 }],
    ['rescale_1', { guidanceRescale: 1, seeds: [5] }],
  ])('ends at the latents of diffusers: %s', (key, more) => expectLatents(key, pipeline, more));

  it('works with zero terminal SNR', async () => {
    const options = { path: inject('wholeSdxl'), backend: cpuBackend, zeroTerminalSnr: true };
    const trained = await createSdxlPipeline(options);
    await expectLatents('zero_snr', trained, { guidanceRescale: 0.7 }).finally(() => trained.dispose());
  });
});

describe('a UNet of its own', () => {
  it('replaces that of the checkpoint, in a folder and in a file of either layout', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
    try {
      const whole = join(folder, 'whole');
      await cp(inject('wholeSdxl'), whole, { recursive: true });
      const { unet: tensors } = planSdxlWeights(await readSdxlConfig(whole));
      const write = (path: string, prefix: string, names: ReadonlyMap<string, string>) =>
        writeHashSafetensors(join(folder, path), {
          ...{ dtype: 'F16', hashPrefix: '' },
          tensors: tensors.map(([name, shape]) => [prefix + (names.get(name) ?? name), shape] as const),
        });
      // Hash weights follow from the names: each file is another UNet, and is compared with a folder that has it.
      await write('whole/unet/diffusion_pytorch_model.safetensors', '', new Map());
      await write('own.safetensors', '', new Map());
      const path = inject('wholeSdxl');
      const expected = await sdxlImage({ path: whole });
      expect(await sdxlImage({ path, unet: join(whole, 'unet') })).toEqual(expected);
      expect(await sdxlImage({ path, unet: join(folder, 'own.safetensors') })).toEqual(expected);
      expect(await sdxlImage({ path })).not.toEqual(expected);
      const names = originalUNetNames(tensors.map(([name]) => name));
      await write('original.safetensors', 'model.diffusion_model.', names);
      expect(await sdxlImage({ path, unet: join(folder, 'original.safetensors') })).not.toEqual(expected);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('is refused where it does not fit', async () => {
    const vae = join(inject('wholeSdxl'), 'vae', 'diffusion_pytorch_model.safetensors');
    await expect(sdxlImage({ path: inject('wholeSdxl'), unet: vae })).rejects.toThrow(/has no conv_in\.weight/);
  });
});

import { copyFile, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest';
import { readControlNetSummary } from '../../../src/pipelines/controlnets/controlnet-summary.js';
import type { RequestControl } from '../../../src/pipelines/pipeline.js';
import { originalUNetNames } from '../../../src/pipelines/sdxl/checkpoint/original-names.js';
import { planControlNetWeights } from '../../../src/pipelines/sdxl/control/controlnet.js';
import { scaleAt } from '../../../src/pipelines/sdxl/control/job-controls.js';
import { createSdxlPipeline, type SdxlPipeline } from '../../../src/pipelines/sdxl/pipeline.js';
import { writeSyntheticControlNet } from '../../../src/synthetic/controlnet.js';
import { writeHashSafetensors } from '../../../src/synthetic/write-safetensors.js';
import { Expected } from '../../conformance/golden-folder.js';
import { difference } from '../../conformance/report.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { latentsOf } from '../../support/latents-of.js';
import { imagesOf, sdxlRequest as request } from '../../support/sdxl-requests.js';
import { readTensorFile, writeTensorFile } from '../../support/tensor-file.js';

const SIZE = 64;
const goldens = fileURLToPath(new URL('../../fixtures/goldens/controlnet/expected.safetensors', import.meta.url));
const lora = fileURLToPath(new URL('../../fixtures/goldens/sdxl-lora/attn.peft.safetensors', import.meta.url));

const pixels = (of: (x: number, y: number) => readonly number[]): Uint8Array =>
  Uint8Array.from({ length: SIZE * SIZE * 3 }, (_, i) => {
    const pixel = Math.floor(i / 3);
    return of(pixel % SIZE, Math.floor(pixel / SIZE))[i % 3] as number;
  });
const rings = pixels((x, y) => new Array<number>(3).fill((Math.floor(Math.hypot(x - 32, y - 32) / 6) % 2) * 255));
const ramp = pixels((x, y) => [4 * x, 4 * y, 2 * (x + y)]);
const mask = Uint8Array.from({ length: SIZE * SIZE }, (_, i) => (i % SIZE >= 32 ? 255 : 0));

let folder: string;
let pipeline: SdxlPipeline;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  await writeSyntheticControlNet(join(folder, 'a.safetensors'), 'sdxl-controlnet-tiny');
  pipeline = await createSdxlPipeline({ path: inject('wholeSdxl'), backend: cpuBackend });
  const { unet } = pipeline.networks.config;
  const config = { unet, middleDepth: 2, hintChannels: [16, 32, 32, 32] };
  const tensors = planControlNetWeights(config);
  await writeHashSafetensors(join(folder, 'b.safetensors'), { dtype: 'F16', hashPrefix: 'other.', tensors });
});
afterAll(async () => {
  await pipeline.dispose();
  await rm(folder, { recursive: true });
});

const control = (more: Partial<RequestControl> = {}, name = 'a'): RequestControl => ({
  ...{
    name,
    path: join(folder, `${name}.safetensors`),
    revision: '1',
    parameters: 0,
    rgb: rings,
    scale: 1,
    start: 0,
    end: 1,
  },
  ...more,
});

describe('a job with ControlNets', () => {
  it.each([
    ['single', () => ({ controls: [control()] })],
    ['window', () => ({ controls: [control({ rgb: ramp, scale: 0.7, start: 0.25, end: 0.75 })] })],
    [
      'several',
      () => ({ controls: [control({ scale: 0.6, end: 0.5 }), control({ rgb: ramp, scale: 1.2, start: 0.5 }, 'b')] }),
    ],
    ['unguided', () => ({ guidanceScale: 1, controls: [control()] })],
    ['img2img', () => ({ init: { rgb: ramp, strength: 0.75 }, controls: [control({ scale: 0.8, end: 0.5 })] })],
    ['inpaint', () => ({ init: { rgb: ramp, strength: 1, mask }, controls: [control({ scale: 0.8 })] })],
  ] as const)('ends at the latents of diffusers: %s', async (key, more) => {
    const wanted = (await Expected.read(goldens)).floats(key);
    const { relative } = difference(await latentsOf(pipeline, request(more())), wanted);
    console.log(`${key}: largest error ${relative.toExponential(1)}`);
    expect(relative).toBeLessThan(1e-5);
  });

  it('may have no attention, as the small ones of diffusers', async () => {
    const { unet } = pipeline.networks.config;
    const blocks = { depth: [0, 0, 0], down_block_types: new Array<'DownBlock2D'>(3).fill('DownBlock2D') };
    const config = { unet: { ...unet, ...blocks }, middleDepth: 0, hintChannels: [16, 32, 32, 32] };
    const tensors = planControlNetWeights(config);
    await writeHashSafetensors(join(folder, 'small.safetensors'), { dtype: 'F16', hashPrefix: 'small.', tensors });
    const wanted = (await Expected.read(goldens)).floats('small');
    const latents = await latentsOf(pipeline, request({ controls: [control({}, 'small')] }));
    expect(difference(latents, wanted).relative).toBeLessThan(1e-5);
  });

  describe('of a union model', () => {
    const path = () => join(folder, 'union.safetensors');
    beforeAll(async () => {
      const { unet } = pipeline.networks.config;
      const config = { unet, middleDepth: 2, hintChannels: [16, 32, 32, 32], union: { modes: 6, layers: 1 } };
      // As the released file has them: OpenAI's names, one tensor for three projections.
      const tensors = planControlNetWeights(config).map(([name, shape]) => {
        if (!name.startsWith('transformer_layes.')) return [name, shape] as const;
        const [rows = 0, ...rest] = shape;
        const fused = name.includes('v_proj') ? 3 * rows : rows;
        const theirs = name
          .replace('self_attn.v_proj.', 'attn.in_proj_')
          .replace('self_attn.', 'attn.')
          .replace('layer_norm', 'ln_')
          .replace('mlp.fc1', 'mlp.c_fc')
          .replace('mlp.fc2', 'mlp.c_proj');
        return [theirs, [fused, ...rest]] as const;
      });
      await writeHashSafetensors(path(), { dtype: 'F16', hashPrefix: 'union.', tensors });
    });

    it.each([
      ['union.3', { mode: 3 }],
      ['union.1', { mode: 1, rgb: ramp, scale: 0.6, end: 0.5 }],
    ])('ends at the latents of diffusers: %s', async (key, more) => {
      const wanted = (await Expected.read(goldens)).floats(key);
      const latents = await latentsOf(pipeline, request({ controls: [control(more, 'union')] }));
      const { relative } = difference(latents, wanted);
      console.log(`${key}: largest error ${relative.toExponential(1)}`);
      expect(relative).toBeLessThan(1e-5);
    });

    it('takes jobs of different kinds into one batch', async () => {
      const first = request({ controls: [control({ mode: 3 }, 'union')] });
      const second = request({ controls: [control({ mode: 1, rgb: ramp }, 'union')] });
      const together = await imagesOf(pipeline, first, second);
      expect(together).toEqual([...(await imagesOf(pipeline, first)), ...(await imagesOf(pipeline, second))]);
      expect(await readControlNetSummary(path())).toMatchObject({ base: 'SDXL', modes: 6 });
    });
  });

  it('draws in a batch what each image is alone, whatever scale and part of the steps the jobs have', async () => {
    const first = request({ seeds: [3, 4], controls: [control({ scale: 0.5 })] });
    const second = request({ seeds: [5], controls: [control({ rgb: ramp, start: 0.5 })] });
    const together = await imagesOf(pipeline, first, second);
    const alone = [
      ...(await imagesOf(pipeline, { ...first, seeds: [3] })),
      ...(await imagesOf(pipeline, { ...first, seeds: [4] })),
      ...(await imagesOf(pipeline, second)),
    ];
    expect(together).toEqual(alone);
  });

  it('is the same as without one at scale 0, and works with LoRAs', async () => {
    const bare = await imagesOf(pipeline, request());
    expect(await imagesOf(pipeline, request({ controls: [control({ scale: 0 })] }))).toEqual(bare);
    const variant = await pipeline.withLoras([{ path: lora, weight: 1 }]);
    const [one] = await imagesOf(variant, request({ controls: [control()] }));
    const [two] = await imagesOf(pipeline, request({ controls: [control()] }));
    const [three] = await imagesOf(variant, request());
    await variant.dispose();
    expect(new Set([one, two, three].map((rgb) => Buffer.from(rgb as Uint8Array).toString('hex'))).size).toBe(3);
  });

  it('ends between two steps when it is cancelled', async () => {
    const abort = new AbortController();
    const kinds: string[] = [];
    for await (const event of pipeline.generate([
      { request: request({ controls: [control()] }), signal: abort.signal },
    ])) {
      kinds.push(event.kind);
      if (event.kind === 'progress' && event.phase === 'denoise') abort.abort();
    }
    expect(kinds.at(-1)).toBe('aborted');
    expect(kinds).not.toContain('image');
  });
});

describe('a ControlNet file', () => {
  it('works in the original names, with their prefix and without', async () => {
    const tensors = await readTensorFile(join(folder, 'a.safetensors'));
    const names = originalUNetNames([...tensors.keys()].filter((key) => !key.startsWith('controlnet_')));
    const original = (key: string): string => {
      const hint = /^controlnet_cond_embedding\.(conv_in|conv_out|blocks\.(\d+))\.(.*)$/.exec(key);
      if (hint !== null) {
        const place = hint[1] === 'conv_in' ? 0 : hint[1] === 'conv_out' ? 14 : 2 * Number(hint[2]) + 2;
        return `input_hint_block.${place}.${hint[3]}`;
      }
      return (
        names.get(key) ??
        key
          .replace(/^controlnet_down_blocks\.(\d+)\./, 'zero_convs.$1.0.')
          .replace(/^controlnet_mid_block\./, 'middle_block_out.0.')
      );
    };
    const expected = await imagesOf(pipeline, request({ controls: [control()] }));
    for (const prefix of ['', 'control_model.']) {
      const name = `original${prefix}`;
      const path = join(folder, `${name}.safetensors`);
      await writeTensorFile(path, new Map([...tensors].map(([key, value]) => [prefix + original(key), value])));
      expect(await readControlNetSummary(path)).toMatchObject({ base: 'SDXL', layout: 'original' });
      expect(await imagesOf(pipeline, request({ controls: [control({ path, revision: prefix }, name)] }))).toEqual(
        expected,
      );
    }
  });

  it('says in its configuration that blue comes first', async () => {
    const own = await mkdtemp(join(folder, 'bgr-'));
    const path = join(own, 'diffusion_pytorch_model.safetensors');
    await copyFile(join(folder, 'a.safetensors'), path);
    await writeFile(join(own, 'config.json'), '{"controlnet_conditioning_channel_order":"bgr"}');
    const reversed = Uint8Array.from(ramp, (_, i) => ramp[i - (i % 3) + 2 - (i % 3)] as number);
    await writeFile(join(own, 'config.json'), '{');
    const damaged = imagesOf(pipeline, request({ controls: [control({ path, revision: 'damaged' })] }));
    await expect(damaged).rejects.toThrow(`config.json beside ${path}`);
    await writeFile(join(own, 'config.json'), '{"controlnet_conditioning_channel_order":"bgr"}');
    const bgr = await imagesOf(pipeline, request({ controls: [control({ path, revision: 'bgr', rgb: reversed })] }));
    expect(bgr).toEqual(await imagesOf(pipeline, request({ controls: [control({ rgb: ramp })] })));
  });

  const table = (shape: number[]) => ({
    dtype: 'F16',
    shape,
    bytes: Buffer.alloc(2 * shape.reduce((a, b) => a * b, 1)),
  });
  it.each<[Record<string, number[]>, RegExp]>([
    [
      { 'lora.weight': [1] },
      /is no ControlNet: it has neither controlnet_cond_embedding\.\* nor input_hint_block\.\*$/,
    ],
    [
      { 'controlnet_cond_embedding.conv_in.weight': [1] },
      /is a ControlNet for Stable Diffusion 1 or 2; this model is SDXL$/,
    ],
    [
      { 'controlnet_cond_embedding.conv_in.weight': [1], 'add_embedding.linear_1.weight': [1] },
      /shrinks its control 1 times, the model's VAE 8 times$/,
    ],
    [
      Object.fromEntries([
        ...['controlnet_cond_embedding.conv_in.weight', 'add_embedding.linear_1.weight'].map((key) => [key, [1]]),
        ...Array.from({ length: 300 }, (_, i) => [`controlnet_cond_embedding.blocks.${i}.weight`, [1]]),
      ]),
      /has controlnet_cond_embedding\.blocks\.256\.weight, must have at most 256 layers of a kind$/,
    ],
  ])('is refused: %#', async (shapes, message) => {
    const path = join(folder, 'refused.safetensors');
    await writeTensorFile(path, new Map(Object.entries(shapes).map(([key, shape]) => [key, table(shape)])));
    const controls = [control({ path, revision: String(message) }, 'refused')];
    await expect(imagesOf(pipeline, request({ controls }))).rejects.toThrow(message);
  });

  it('is refused with every tensor that does not fit', async () => {
    const tensors = await readTensorFile(join(folder, 'a.safetensors'));
    tensors.delete('controlnet_mid_block.bias');
    tensors.set('controlnet_down_blocks.0.weight', table([32, 31, 1, 1]));
    const path = join(folder, 'misfit.safetensors');
    await writeTensorFile(path, tensors);
    const controls = [control({ path }, 'misfit')];
    await expect(imagesOf(pipeline, request({ controls }))).rejects.toThrow(
      /is not a whole ControlNet checkpoint:[\s\S]*controlnet_down_blocks\.0\.weight[\s\S]*controlnet_mid_block\.bias/,
    );
  });
});

describe('scaleAt', () => {
  it.each([
    [{ start: 0, end: 1 }, [1, 1, 1, 1]],
    [{ start: 0.25, end: 0.75 }, [0, 1, 1, 0]],
    [{ start: 0.3, end: 1 }, [0, 0, 1, 1]],
    [{ start: 0.5, end: 0.5 }, [0, 0, 0, 0]],
  ])('is that of diffusers: %j', (part, scales) => {
    expect([0, 1, 2, 3].map((i) => scaleAt({ scale: 1, ...part }, i, 4))).toEqual(scales);
  });
});

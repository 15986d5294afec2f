import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { readConfig } from '../../src/config/server-config.js';
import type { Provider } from '../../src/device.js';
import { planModel } from '../../src/engine/plan-model.js';
import { graphMemory } from '../../src/graph/graph-memory.js';
import { modelMemory } from '../../src/pipelines/common/plan-memory.js';
import { memoryAt, type PlannedNetwork, type RunSize, sumMemory } from '../../src/pipelines/model-memory.js';
import { openSdxlCheckpoint } from '../../src/pipelines/sdxl/checkpoint/checkpoint.js';
import { sdxl } from '../../src/pipelines/sdxl/family.js';
import { buildSdxlNetworks } from '../../src/pipelines/sdxl/weights.js';
import { openWanCheckpoint } from '../../src/pipelines/wan/checkpoint/checkpoint.js';
import { wan } from '../../src/pipelines/wan/family.js';
import { inspectWan } from '../../src/pipelines/wan/inspect.js';
import { buildWanNetworks } from '../../src/pipelines/wan/weights.js';
import { expectedDialects } from '../../src/runtime/precision.js';
import { writeSyntheticSdxl } from '../../src/synthetic/sdxl.js';
import type { SyntheticWanSize } from '../../src/synthetic/sizes.js';
import { writeSyntheticWan } from '../../src/synthetic/wan.js';
import { tempFolder } from '../support/temp-folder.js';

const IMAGE: RunSize = { width: 64, height: 64, frames: 1, rows: 2 };
const VIDEO: RunSize = { width: 64, height: 32, frames: 9, rows: 2 };

function planned(plan: readonly PlannedNetwork[] | undefined, network: string): PlannedNetwork {
  const found = plan?.find((each) => each.network === network);
  if (found === undefined) throw new Error(`${network} is not in the plan`);
  return found;
}

/** Elements of the tensors of a safetensors file whose names fit. */
async function elementsIn(file: string, names = /^/): Promise<number> {
  const bytes = await readFile(file);
  const header = bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE(0))).toString();
  const tensors = Object.entries(JSON.parse(header) as Record<string, { shape: number[] }>);
  return tensors.reduce((sum, [name, { shape }]) => sum + (names.test(name) ? shape.reduce((a, b) => a * b, 1) : 0), 0);
}

describe('the plan of SDXL', () => {
  it.each([
    ['fp32', 'fp32', 4],
    ['fp16', 'fp16', 2],
    ['bf16', 'bf16', 2],
  ] as const)('in %s has the weights of the file in that type', async (precision, unet, bytes) => {
    const path = await writeSyntheticSdxl(join(await tempFolder(), 'sdxl'), 'sdxl-tiny', 'F32');
    const plan = await sdxl.planMemory?.({ path }, expectedDialects('cuda', precision), IMAGE);
    const elements = await elementsIn(join(path, 'unet/diffusion_pytorch_model.safetensors'));
    const { weightBytes, ...rest } = planned(plan, 'unet');
    expect(rest).toMatchObject({ precision: unet, residence: 'always' });
    // Beside its weights a graph has constants of a few bytes.
    expect(weightBytes).toBeGreaterThanOrEqual(bytes * elements);
    expect(weightBytes / (bytes * elements)).toBeLessThan(1.01);
    // Its configuration does not say that float16 holds its values.
    expect(planned(plan, 'vae_decoder').precision).toBe('fp32');
    expect(planned(plan, 'vae_encoder').residence).toBe('reference');
  });

  it('grows with images and pixels', async () => {
    const path = await writeSyntheticSdxl(join(await tempFolder(), 'sdxl'), 'sdxl-tiny');
    const of = (run: Partial<RunSize>) =>
      sdxl.planMemory?.({ path }, expectedDialects('cpu', 'auto'), {
        width: 512,
        height: 512,
        frames: 1,
        rows: 2,
        ...run,
      });
    const [small, batch, large] = [await of({}), await of({ rows: 4 }), await of({ width: 1024 })];
    const unet = planned(small, 'unet').peakBytes;
    expect(planned(batch, 'unet').peakBytes / unet).toBeCloseTo(2, 1);
    // Less than twice: a part of it follows from the texts.
    expect(planned(large, 'unet').peakBytes / unet).toBeGreaterThan(1.8);
    expect(planned(large, 'vae_decoder').peakBytes / planned(small, 'vae_decoder').peakBytes).toBeCloseTo(2, 1);
    // Images are decoded one at a time.
    expect(planned(batch, 'vae_decoder')).toEqual(planned(small, 'vae_decoder'));
  });
});

describe('a plan with chunked attention', () => {
  it.each([
    ['SDXL', sdxl, 'unet'],
    ['WAN', wan, 'transformer'],
  ] as const)('of %s takes nearly what fused attention takes', async (_, family, denoiser) => {
    const folder = await tempFolder();
    const path =
      family === sdxl
        ? await writeSyntheticSdxl(join(folder, 'sdxl'), 'sdxl-tiny')
        : await writeSyntheticWan(join(folder, 'wan'), 'wan-i2v-tiny', 'BF16');
    const run = { width: 512, height: 512, frames: family === sdxl ? 1 : 9, rows: 2 };
    const plan = (attention: 'fused' | 'chunked') =>
      family.planMemory?.({ path }, () => [{ attention, compute: 'f32' }], run);
    const [fused, chunked] = [planned(await plan('fused'), denoiser), planned(await plan('chunked'), denoiser)];
    expect(chunked.weightBytes / fused.weightBytes).toBeCloseTo(1, 1);
    expect(chunked.peakBytes / fused.peakBytes).toBeGreaterThan(0.9);
    expect(chunked.peakBytes / fused.peakBytes).toBeLessThan(1.1);
  });
});

describe('the plan of WAN', () => {
  it('has the weights of the file in the type that each network computes in', async () => {
    const path = await writeSyntheticWan(join(await tempFolder(), 'wan'), 'wan-i2v-tiny', 'BF16');
    const plan = await wan.planMemory?.({ path }, expectedDialects('cuda', 'auto'), VIDEO);
    const encoder = planned(plan, 'text_encoder');
    expect(encoder).toMatchObject({ precision: 'bf16', residence: 'encode' });
    const text = await elementsIn(join(path, 'text_encoder/model.safetensors'));
    // Norms are computed in float32.
    expect(encoder.weightBytes / (2 * text)).toBeGreaterThan(0.99);
    expect(encoder.weightBytes / (2 * text)).toBeLessThan(1.02);
    const decoder = await elementsIn(
      join(path, 'vae/diffusion_pytorch_model.safetensors'),
      /^(decoder|post_quant_conv)\./,
    );
    expect(planned(plan, 'vae_decoder_later').weightBytes / (2 * decoder)).toBeCloseTo(1, 1);
    expect(planned(plan, 'transformer').precision).toBe('fp16');
    expect(planned(plan, 'image_encoder').residence).toBe('encode');
  });

  it.each([
    ['wan-tiny', 'reference'],
    // Without known frames its control is made of blank ones.
    ['wan-vace-tiny', 'always'],
    ['wan-i2v-tiny', 'always'],
    ['wan-ti2v-tiny', 'reference'],
  ] as const)('%s: the encoder of frames is counted for the jobs that run it', async (size, residence) => {
    const path = await writeSyntheticWan(join(await tempFolder(), 'wan'), size, 'BF16');
    const plan = await wan.planMemory?.({ path }, expectedDialects('cuda', 'auto'), VIDEO);
    for (const network of ['vae_encoder_first', 'vae_encoder_later'])
      expect(planned(plan, network).residence, network).toBe(residence);
  });

  // Parameters of diffusers' WanTransformer3DModel, and of CLIP's ViT-H without its last layer and norm, which nothing reads.
  it.each([
    ['wan-14b', 14_288_491_584, 0],
    ['wan-i2v-14b', 16_394_878_784, 611_086_080],
    ['wan-fun-inp-1.3b', 1_564_428_608, 611_086_080],
    ['wan-ti2v-5b', 4_999_787_712, 0],
    ['wan-fun-control-1.3b', 1_564_502_336, 611_086_080],
  ] as const)('%s has the weights of the released one', async (size, transformer, eye) => {
    const path = await writeSyntheticWan(join(await tempFolder(), 'wan'), size, 'BF16', true);
    const { networks } = await inspectWan({ path });
    expect(networks.transformer?.parameters).toBe(transformer);
    expect(networks.image_encoder?.parameters ?? 0).toBe(eye);
  });

  it('decodes whole frames on a large card of CUDA, and on no other device', async () => {
    const path = await writeSyntheticWan(join(await tempFolder(), 'wan'), 'wan-1.3b', 'BF16', true);
    const config = readConfig({}, { WAN_PATH: path });
    const peakOn = async (provider: Provider, memoryBytes?: number) => {
      const model = await planModel(wan, config, { provider, precision: 'fp32', memoryBytes });
      return planned(model?.networks, 'vae_decoder_later').peakBytes;
    };
    const inParts = await peakOn('cuda');
    expect(await peakOn('cuda', 80e9)).toBe(inParts);
    expect(await peakOn('cuda', 141e9)).toBeGreaterThan(2 * inParts);
    expect(await peakOn('cpu', 141e9)).toBe(await peakOn('cpu'));
    expect(await peakOn('webgpu', 141e9)).toBe(await peakOn('webgpu'));
  });

  it('keeps the text encoder where the operator does', async () => {
    const path = await writeSyntheticWan(join(await tempFolder(), 'wan'), 'wan-tiny', 'BF16');
    const plan = await wan.planMemory?.({ path, keepsTextEncoder: true }, expectedDialects('cpu', 'auto'), VIDEO);
    expect(planned(plan, 'text_encoder').residence).toBe('always');
  });
});

describe('memoryAt()', () => {
  const dialectsOf = expectedDialects('cuda', 'auto');

  it.each<[string, RunSize]>([
    ['the size of a corner', { width: 1024, height: 1024, frames: 1, rows: 2 }],
    ['a tall image', { width: 832, height: 1216, frames: 1, rows: 2 }],
    ['six large images', { width: 1536, height: 1536, frames: 1, rows: 12 }],
    ['a small image without guidance', { width: 512, height: 384, frames: 1, rows: 1 }],
  ])('follows the graphs of the released SDXL at %s', async (_, run) => {
    const path = await writeSyntheticSdxl(join(await tempFolder(), 'sdxl'), 'sdxl-base', 'F16', true);
    const graphs = await buildSdxlNetworks(await openSdxlCheckpoint({ path }), dialectsOf);
    const networks = Object.values(graphs).filter((network) => network !== undefined);
    const memory = modelMemory(networks, { width: 1024, height: 1024, frames: 1 });
    expectNear(memoryAt(memory, run), await sdxl.planMemory?.({ path }, dialectsOf, run));
  });

  it.each<[string, RunSize, SyntheticWanSize?]>([
    ['a short video without guidance', { width: 832, height: 480, frames: 33, rows: 1 }],
    ['a large video', { width: 1280, height: 720, frames: 81, rows: 2 }],
    ['the largest video', { width: 2048, height: 2048, frames: 81, rows: 2 }],
    ['the largest video with WAN 2.2', { width: 1920, height: 1088, frames: 121, rows: 2 }, 'wan-ti2v-5b'],
    ['a single frame', { width: 480, height: 480, frames: 1, rows: 2 }],
    ['a long video', { width: 640, height: 352, frames: 161, rows: 2 }],
    ['720p with 14B', { width: 1280, height: 720, frames: 81, rows: 2 }, 'wan-14b'],
    ['a small video with WAN 2.2', { width: 832, height: 480, frames: 49, rows: 2 }, 'wan-ti2v-5b'],
    ['480p with image-to-video 14B', { width: 480, height: 832, frames: 81, rows: 2 }, 'wan-i2v-14b'],
  ])('follows the graphs of the released WAN at %s', async (_, run, released = 'wan-1.3b') => {
    const path = await writeSyntheticWan(join(await tempFolder(), 'wan'), released, 'BF16', true);
    const networks = Object.values(await buildWanNetworks(await openWanCheckpoint({ path }), dialectsOf)).flatMap(
      (network) => network ?? [],
    );
    const memory = modelMemory(networks, { width: 832, height: 480, frames: 81 });
    expectNear(memoryAt(memory, run), await wan.planMemory?.({ path }, dialectsOf, run));
    // What decoders take where memory is short decides whether a job can be run at all.
    const short = memoryAt(memory, run, true);
    for (const [i, { name, graph, parts }] of networks.entries()) {
      if (parts === undefined) continue;
      const { peakBytes } = graphMemory(graph, parts.sizes(run, true));
      expect(Math.abs((short[i]?.peakBytes ?? 0) / peakBytes - 1), `${name} in small parts`).toBeLessThan(0.15);
    }
  });

  function expectNear(interpolated: readonly PlannedNetwork[], direct: readonly PlannedNetwork[] = []): void {
    expect(interpolated).toHaveLength(direct.length);
    for (const [i, { network, weightBytes, peakBytes }] of direct.entries()) {
      const other = interpolated[i];
      expect([other?.network, other?.weightBytes]).toEqual([network, weightBytes]);
      // Of the margins of parts, those that matter most are counted.
      const bound = network.startsWith('vae_decoder') ? 0.07 : 0.02;
      expect(Math.abs((other?.peakBytes ?? 0) / peakBytes - 1), network).toBeLessThan(bound);
    }
  }
});

describe('sumMemory()', () => {
  const network = (name: string, residence: PlannedNetwork['residence'], weightBytes: number): PlannedNetwork => ({
    network: name,
    precision: 'fp16',
    residence,
    weightBytes,
    peakBytes: 1,
  });
  const networks = [
    network('denoiser', 'always', 100),
    network('text encoder', 'encode', 1000),
    network('image encoder', 'encode', 500),
    network('encoder', 'reference', 30),
  ];

  it('adds what is open, and the largest of what is opened in turn', () => {
    expect(sumMemory(networks)).toEqual({ weights: 100, rest: 101, largestInTurn: 1001 });
    expect(sumMemory(networks, ['reference'])).toEqual({ weights: 130, rest: 132, largestInTurn: 1001 });
    expect(sumMemory(networks, ['encode'])).toEqual({ weights: 1600, rest: 1603, largestInTurn: 0 });
  });
});

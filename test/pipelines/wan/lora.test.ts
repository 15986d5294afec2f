import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { GenerationRequest, VideoRequest } from '../../../src/pipelines/pipeline.js';
import {
  originalTransformerName,
  translateTransformer,
} from '../../../src/pipelines/wan/checkpoint/original-layout.js';
import { readWanConfig } from '../../../src/pipelines/wan/checkpoint/read-config.js';
import { wanLoraNames } from '../../../src/pipelines/wan/lora-names.js';
import { createWanPipeline, type WanPipeline } from '../../../src/pipelines/wan/pipeline.js';
import { planWanWeights } from '../../../src/pipelines/wan/weights.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { f32, factorsFor, mergeLora } from '../../support/merged-lora.js';
import { tempFolder } from '../../support/temp-folder.js';
import { readTensorFile, type StoredTensor, writeTensorFile } from '../../support/tensor-file.js';
import { sharedTinyWan, TRANSFORMER } from '../../support/tiny-wan.js';

const RANK = 3;
/** A linear layer of each kind, one outside of the blocks, and a convolution. */
const MODULES = [
  'blocks.0.attn1.to_q',
  'blocks.0.attn1.to_out.0',
  'blocks.1.attn2.to_k',
  'blocks.1.ffn.net.0.proj',
  'blocks.0.ffn.net.2',
  'condition_embedder.time_embedder.linear_1',
  'patch_embedding',
] as const;

let wan: Awaited<ReturnType<typeof sharedTinyWan>>;
let pipeline: WanPipeline;
beforeAll(async () => {
  wan = await sharedTinyWan('F32');
  pipeline = await createWanPipeline({ path: wan.path, backend: cpuBackend });
});
afterAll(async () => {
  await pipeline.dispose();
  await wan.remove();
});

async function factors() {
  return factorsFor(await readTensorFile(join(wan.path, TRANSFORMER)), MODULES, RANK);
}

/** A LoRA file whose modules are named as somebody names them. */
async function loraFile(name: (module: string) => string, [downName, upName]: readonly [string, string]) {
  const path = join(await tempFolder(), 'lora.safetensors');
  const tensors = new Map<string, StoredTensor>();
  for (const { module, down, up } of await factors()) {
    tensors.set(`${name(module)}.${downName}.weight`, f32(down.shape, down.values));
    tensors.set(`${name(module)}.${upName}.weight`, f32(up.shape, up.values));
  }
  await writeTensorFile(path, tensors);
  return path;
}

/** The checkpoint with the updates added to its weights. */
async function mergedCheckpoint(weight: number): Promise<string> {
  const folder = join(await tempFolder(), 'merged');
  await cp(wan.path, folder, { recursive: true });
  const weights = await readTensorFile(join(folder, TRANSFORMER));
  mergeLora(weights, await factors(), weight);
  await writeTensorFile(join(folder, TRANSFORMER), weights);
  return folder;
}

async function framesOf(model: WanPipeline, video: Partial<VideoRequest> = {}): Promise<Uint8Array> {
  const request: GenerationRequest = {
    prompt: 'a red kite over a field',
    negativePrompt: 'blurry',
    width: 64,
    height: 48,
    steps: 4,
    guidanceScale: 5,
    scheduler: 'flow_unipc',
    seeds: [3],
    video: { frames: 5, shift: 5, ...video },
  };
  const frames: Uint8Array[] = [];
  for await (const event of model.generate([{ request, signal: new AbortController().signal }]))
    if (event.kind === 'frames') frames.push(...event.frames);
  return Buffer.concat(frames);
}

const farthest = (a: Uint8Array, b: Uint8Array) =>
  a.reduce((most, value, i) => Math.max(most, Math.abs(value - (b[i] ?? 0))), 0);

/** Where names of the original code stand in the file, without `diffusion_model.`. */
const original = (module: string) => originalTransformerName(`${module}.weight`).replace(/\.weight$/, '');

describe('a LoRA of WAN', () => {
  it.each([
    ['diffusers', (module: string) => `transformer.${module}`, ['lora_A', 'lora_B']],
    ['the original code and ComfyUI', (module: string) => `diffusion_model.${original(module)}`, ['lora_A', 'lora_B']],
    ['the original code, bare', original, ['lora_down', 'lora_up']],
    [
      "kohya's scripts",
      (module: string) => `lora_unet_${original(module).replaceAll('.', '_')}`,
      ['lora_down', 'lora_up'],
    ],
  ] as const)('in the names of %s makes what its sums make in the checkpoint', async (_, name, halves) => {
    const merged = await createWanPipeline({ path: await mergedCheckpoint(0.5), backend: cpuBackend });
    const variant = await pipeline.withLoras([{ path: await loraFile(name, halves), weight: 0.5 }]);
    try {
      const expected = await framesOf(merged);
      expect(farthest(await framesOf(variant), expected)).toBeLessThanOrEqual(2);
      expect(farthest(await framesOf(pipeline), expected)).toBeGreaterThan(2);
    } finally {
      await variant.dispose();
      await merged.dispose();
    }
  });

  it('also changes steps that skip the blocks; the bare model works after its variant was disposed of', async () => {
    const bare = await framesOf(pipeline, { reuseThreshold: 1 });
    const path = await loraFile((module) => `transformer.${module}`, ['lora_A', 'lora_B']);
    const merged = await createWanPipeline({ path: await mergedCheckpoint(1), backend: cpuBackend });
    const variant = await pipeline.withLoras([{ path, weight: 1 }]);
    const own = await framesOf(variant, { reuseThreshold: 1 });
    expect(farthest(own, await framesOf(merged, { reuseThreshold: 1 }))).toBeLessThanOrEqual(2);
    await variant.dispose();
    await merged.dispose();
    expect(await framesOf(pipeline, { reuseThreshold: 1 })).toEqual(bare);
  });
});

describe('originalTransformerName', () => {
  it('is the inverse of the reader of the original layout, for every tensor', async () => {
    const config = await readWanConfig(wan.path);
    const record = { name: '', dtype: 'F32', shape: [], file: '', offset: 0, length: 0 };
    for (const [key] of planWanWeights(config).transformer) {
      expect([...translateTransformer(new Map([[originalTransformerName(key), record]])).keys()]).toEqual([key]);
    }
    expect(wanLoraNames(config).weights.get('lora_unet_blocks_0_self_attn_q')?.key).toBe('blocks.0.attn1.to_q.weight');
  });
});

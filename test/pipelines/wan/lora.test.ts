import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readLora } from '../../../src/pipelines/lora/read-lora.js';
import type { GenerationRequest, VideoRequest } from '../../../src/pipelines/pipeline.js';
import {
  originalTransformerName,
  translateTransformer,
} from '../../../src/pipelines/wan/checkpoint/original-layout.js';
import { readWanConfig } from '../../../src/pipelines/wan/checkpoint/read-config.js';
import { wanLoraNames } from '../../../src/pipelines/wan/lora-names.js';
import { createWanPipeline, type WanPipeline } from '../../../src/pipelines/wan/pipeline.js';
import { planWanWeights } from '../../../src/pipelines/wan/weights.js';
import { hashTensor } from '../../../src/synthetic/hash-weights.js';
import { cpuBackend } from '../../support/cpu-backend.js';
import { allInFloat8 } from '../../support/float8.js';
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
async function loraFile(
  name: (module: string) => string,
  [downName, upName]: readonly [string, string],
  more: ReadonlyMap<string, StoredTensor> = new Map(),
  metadata: Readonly<Record<string, string>> = {},
) {
  const path = join(await tempFolder(), 'lora.safetensors');
  const tensors = new Map<string, StoredTensor>();
  for (const { module, down, up } of await factors()) {
    tensors.set(`${name(module)}.${downName}`, f32(down.shape, down.values));
    tensors.set(`${name(module)}.${upName}`, f32(up.shape, up.values));
  }
  await writeTensorFile(path, new Map([...tensors, ...more]), metadata);
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
    ['diffusers', (module: string) => `transformer.${module}`, ['lora_A.weight', 'lora_B.weight']],
    [
      'the original code and ComfyUI',
      (module: string) => `diffusion_model.${original(module)}`,
      ['lora_A.weight', 'lora_B.weight'],
    ],
    ['the original code, bare', original, ['lora_down.weight', 'lora_up.weight']],
    [
      "kohya's scripts",
      (module: string) => `lora_unet_${original(module).replaceAll('.', '_')}`,
      ['lora_down.weight', 'lora_up.weight'],
    ],
    [
      'WAN Fun',
      (module: string) => `lora_unet__${original(module).replaceAll('.', '_')}`,
      ['lora_down.weight', 'lora_up.weight'],
    ],
    [
      'PEFT adapters',
      (module: string) => `base_model.model.${module}`,
      ['lora_A.default.weight', 'lora_B.default.weight'],
    ],
    ['parameters without .weight', (module: string) => `diffusion_model.${original(module)}`, ['lora_A', 'lora_B']],
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

  it('reads 8-bit floats: of the checkpoint, of UMT5 and of the LoRA', async () => {
    const [stored, widened] = [join(await tempFolder(), 'stored'), join(await tempFolder(), 'widened')];
    for (const folder of [stored, widened]) await cp(wan.path, folder, { recursive: true });
    for (const file of [TRANSFORMER, 'text_encoder/model.safetensors']) {
      const [small, wide] = allInFloat8('F8_E4M3', await readTensorFile(join(wan.path, file)));
      await writeTensorFile(join(stored, file), small);
      await writeTensorFile(join(widened, file), wide);
    }
    const path = await loraFile((module) => `transformer.${module}`, ['lora_A.weight', 'lora_B.weight']);
    const [small, wide] = allInFloat8('F8_E5M2', await readTensorFile(path));
    const loras = [join(stored, 'lora.safetensors'), join(widened, 'lora.safetensors')] as const;
    await writeTensorFile(loras[0], small);
    await writeTensorFile(loras[1], wide);
    const pictures: Uint8Array[] = [];
    for (const [i, folder] of [stored, widened].entries()) {
      const model = await createWanPipeline({ path: folder, backend: cpuBackend });
      const variant = await model.withLoras([{ path: loras[i] ?? '', weight: 1 }]);
      pictures.push(await framesOf(model), await framesOf(variant));
      await variant.dispose();
      await model.dispose();
    }
    expect(pictures[0]).toEqual(pictures[2]);
    expect(pictures[1]).toEqual(pictures[3]);
    expect(pictures[1]).not.toEqual(pictures[0]);
  });

  it('adds differences of weights, norms, biases and modulations next to factors', async () => {
    const keys = [
      'blocks.0.scale_shift_table',
      'scale_shift_table',
      'blocks.0.attn1.norm_q.weight',
      'blocks.0.norm2.bias',
      'blocks.1.attn1.to_v.weight',
      'proj_out.bias',
    ];
    const folder = await mergedCheckpoint(0.5);
    const weights = await readTensorFile(join(folder, TRANSFORMER));
    const differences = new Map<string, StoredTensor>();
    for (const key of keys) {
      const { shape, bytes } = weights.get(key) ?? { shape: [], bytes: Buffer.alloc(0) };
      const difference = hashTensor(`difference ${key}`, shape);
      const values = new Float32Array(Uint8Array.from(bytes).buffer).map(
        (value, i) => value + 0.5 * (difference[i] ?? 0),
      );
      weights.set(key, f32(shape, values));
      const name = originalTransformerName(key)
        .replace(/\.modulation$/, '.diff_m')
        .replace(/\.weight$/, '.diff')
        .replace(/\.bias$/, '.diff_b');
      differences.set(`diffusion_model.${name}`, f32(shape, difference));
    }
    await writeTensorFile(join(folder, TRANSFORMER), weights);
    const name = (module: string) => `diffusion_model.${original(module)}`;
    const path = await loraFile(name, ['lora_down.weight', 'lora_up.weight'], differences);
    const merged = await createWanPipeline({ path: folder, backend: cpuBackend });
    const variant = await pipeline.withLoras([{ path, weight: 0.5 }]);
    const factorsAlone = await pipeline.withLoras([{ path: await loraFile(name, ['lora_A', 'lora_B']), weight: 0.5 }]);
    try {
      const expected = await framesOf(merged);
      expect(farthest(await framesOf(variant), expected)).toBeLessThanOrEqual(2);
      expect(farthest(await framesOf(factorsAlone), expected)).toBeGreaterThan(2);
    } finally {
      for (const model of [merged, variant, factorsAlone]) await model.dispose();
    }
  });

  it('takes its alphas from the settings in the header', async () => {
    const settings = { 'transformer.r': RANK, 'transformer.lora_alpha': 2, 'transformer.use_rslora': true };
    const name = (module: string) => `transformer.${module}`;
    const halves = ['lora_A.weight', 'lora_B.weight'] as const;
    const path = await loraFile(name, halves, new Map(), { lora_adapter_metadata: JSON.stringify(settings) });
    const { updates } = await readLora(path, wanLoraNames(await readWanConfig(wan.path)));
    expect(updates.map(({ update }) => update.scale)).toEqual(MODULES.map(() => 2 / Math.sqrt(RANK)));
  });

  it('also changes steps that skip the blocks; the bare model works after its variant was disposed of', async () => {
    const bare = await framesOf(pipeline, { reuseThreshold: 1 });
    const path = await loraFile((module) => `transformer.${module}`, ['lora_A.weight', 'lora_B.weight']);
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
    expect(wanLoraNames(config).weights.get('lora_unet_blocks_0_self_attn_q')?.module).toBe('blocks.0.attn1.to_q');
  });
});

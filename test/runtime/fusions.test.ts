import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, inject, it } from 'vitest';
import { defaultDialect, type Fusion, fusions } from '../../src/graph/dialect.js';
import { Graph } from '../../src/graph/graph.js';
import { Weights } from '../../src/graph/weights.js';
import { openSdxlCheckpoint } from '../../src/pipelines/sdxl/checkpoint/checkpoint.js';
import { buildUNet } from '../../src/pipelines/sdxl/model/unet.js';
import { openWanCheckpoint } from '../../src/pipelines/wan/checkpoint/checkpoint.js';
import { buildWanNetworks } from '../../src/pipelines/wan/weights.js';
import { openBackend } from '../../src/runtime/backend.js';
import { openOrtLibrary } from '../../src/runtime/native/ort-library.js';
import { rightFusions, rightOps } from '../../src/runtime/op-probes.js';
import { writeSyntheticSdxl } from '../../src/synthetic/sdxl.js';
import { tempFolder } from '../support/temp-folder.js';

/** Chromium's Vulkan driver on the CPU: WebGPU without a GPU. */
const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';

async function deviceOf(provider: 'cpu' | 'webgpu') {
  process.env.VK_DRIVER_FILES = SWIFTSHADER;
  process.env.XDG_RUNTIME_DIR ??= '/tmp';
  return { provider, deviceId: 0, threads: 1, runtime: { name: 'native', library: await openOrtLibrary() } } as const;
}

describe('rightFusions()', () => {
  // FastGelu is the one op of them that every provider has a kernel for.
  it('finds none but the biased GELU on the CPU, which has no other of the kernels', async () => {
    expect(await rightFusions(await deviceOf('cpu'), 'f32', fusions)).toEqual(['biasGelu']);
  });

  // WebGPU has kernels for BiasSplitGelu and BiasAdd too: what the ops compute is seen without a card.
  it.skipIf(!existsSync(SWIFTSHADER))('finds all on WebGPU right, and the group norm missing', async () => {
    expect(await rightFusions(await deviceOf('webgpu'), 'f32', fusions)).toEqual(['geglu', 'biasAdd', 'biasGelu']);
  });

  it('is not asked for providers other than CUDA', async () => {
    const { dialectsOf } = await openBackend({ provider: 'cpu', runtime: 'native', fuses: true });
    expect(dialectsOf([])).toMatchObject([{ fusions: [] }]);
  });
});

describe('rightOps()', () => {
  it('finds in two sessions what takes one for each op otherwise', async () => {
    expect(await rightOps(await deviceOf('cpu'), 'f32', ['biasGelu'])).toEqual({
      attention: true,
      sums: true,
      fusions: ['biasGelu'],
    });
  });

  it('says nothing where the provider has no kernel for one of the ops', async () => {
    expect(await rightOps(await deviceOf('cpu'), 'f32', fusions)).toBeUndefined();
  });
});

describe('a UNet with fused ops', () => {
  const released = async () => writeSyntheticSdxl(join(await tempFolder(), 'sdxl'), 'sdxl-base', 'F16', true);

  const nodesOf = async (names: readonly Fusion[], path: string) => {
    const checkpoint = await openSdxlCheckpoint({ path });
    const graph = new Graph('unet', { ...defaultDialect, fusions: names });
    buildUNet(graph, new Weights(graph, await checkpoint.readWeights('unet')).root, checkpoint.config.unet);
    const count = new Map<string, number>();
    for (const { op } of graph.anatomy.nodes) count.set(op, (count.get(op) ?? 0) + 1);
    return count;
  };

  it('has a GroupNorm for each norm, and the SiLU of none', async () => {
    const path = await released();
    const [plain, fused] = [await nodesOf([], path), await nodesOf(fusions, path)];
    expect(fused.get('GroupNorm')).toBe(plain.get('InstanceNormalization'));
    expect(fused.get('InstanceNormalization')).toBeUndefined();
    // What is left are those of the embeddings.
    expect(fused.get('Sigmoid')).toBe(3);
  });

  it('has a BiasSplitGelu for each gated feed-forward', async () => {
    const path = await released();
    const [plain, fused] = [await nodesOf([], path), await nodesOf(fusions, path)];
    expect(fused.get('BiasSplitGelu')).toBe(plain.get('Gelu'));
    expect(fused.get('Gelu')).toBeUndefined();
  });

  it('has a BiasAdd for each attention and feed-forward, which takes the place of an Add', async () => {
    const path = await released();
    const [plain, fused] = [await nodesOf([], path), await nodesOf(['biasAdd'], path)];
    // Each block has two attentions and one feed-forward.
    expect(fused.get('BiasAdd')).toBe(3 * Number(plain.get('Gelu')));
    expect(Number(plain.get('Add')) - Number(fused.get('Add'))).toBe(fused.get('BiasAdd'));
  });

  // On an H100 the op refused them: "does not support the input: n=2 h=8 w=12 c=32 groups=32".
  it('keeps norms whose groups have an odd number of channels', async () => {
    const fused = await nodesOf(fusions, inject('tinySdxl'));
    expect(fused.get('InstanceNormalization')).toBeGreaterThan(0);
  });
});

describe("WAN's transformer with fused ops", () => {
  it('has a FastGelu for the feed-forward of each block', async () => {
    const checkpoint = await openWanCheckpoint({ path: inject('tinyWan') });
    const { transformer } = await buildWanNetworks(checkpoint, () => [{ ...defaultDialect, fusions }]);
    const ops = transformer.graph.anatomy.nodes.map(({ op }) => op);
    expect(ops.filter((op) => op === 'FastGelu')).toHaveLength(checkpoint.config.transformer.num_layers);
  });
});

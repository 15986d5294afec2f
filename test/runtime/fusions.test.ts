import { existsSync } from 'node:fs';
import { describe, expect, inject, it } from 'vitest';
import { defaultDialect, type Fusion, fusions } from '../../src/graph/dialect.js';
import { Graph } from '../../src/graph/graph.js';
import { Weights } from '../../src/graph/weights.js';
import { openSdxlCheckpoint } from '../../src/pipelines/sdxl/checkpoint/checkpoint.js';
import { buildUNet } from '../../src/pipelines/sdxl/model/unet.js';
import { openBackend } from '../../src/runtime/backend.js';
import { openOrtLibrary } from '../../src/runtime/native/ort-library.js';
import { rightFusions } from '../../src/runtime/op-probes.js';

/** Chromium's Vulkan driver on the CPU: WebGPU without a GPU. */
const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';

async function deviceOf(provider: 'cpu' | 'webgpu') {
  process.env.VK_DRIVER_FILES = SWIFTSHADER;
  process.env.XDG_RUNTIME_DIR ??= '/tmp';
  return { provider, deviceId: 0, threads: 1, runtime: { name: 'native', library: await openOrtLibrary() } } as const;
}

describe('rightFusions()', () => {
  it('finds none on the CPU, which has none of the kernels', async () => {
    expect(await rightFusions(await deviceOf('cpu'), 'f32', fusions)).toEqual([]);
  });

  // WebGPU has a kernel for BiasSplitGelu too: what the op computes is seen without a card.
  it.skipIf(!existsSync(SWIFTSHADER))(
    'finds the gated feed-forward on WebGPU right, and the group norm missing',
    async () => {
      expect(await rightFusions(await deviceOf('webgpu'), 'f32', fusions)).toEqual(['geglu']);
    },
  );

  it('is not asked for providers other than CUDA', async () => {
    const { dialectsOf } = await openBackend({ provider: 'cpu', runtime: 'native' });
    expect(dialectsOf([])).toMatchObject([{ fusions: [] }]);
  });
});

describe('a UNet with fused ops', () => {
  const nodesOf = async (names: readonly Fusion[]) => {
    const checkpoint = await openSdxlCheckpoint({ path: inject('tinySdxl') });
    const graph = new Graph('unet', { ...defaultDialect, fusions: names });
    buildUNet(graph, new Weights(graph, await checkpoint.readWeights('unet')).root, checkpoint.config.unet);
    const count = new Map<string, number>();
    for (const { op } of graph.anatomy.nodes) count.set(op, (count.get(op) ?? 0) + 1);
    return count;
  };

  it('has a GroupNorm for each norm, and the SiLU of none', async () => {
    const [plain, fused] = [await nodesOf([]), await nodesOf(fusions)];
    expect(fused.get('GroupNorm')).toBe(plain.get('InstanceNormalization'));
    expect(fused.get('InstanceNormalization')).toBeUndefined();
    // What is left are those of the embeddings.
    expect(fused.get('Sigmoid')).toBe(3);
  });
});

import { describe, expect, inject, it } from 'vitest';
import type { ComputeType } from '../../src/graph/dialect.js';
import type { Graph } from '../../src/graph/graph.js';
import { onnxTypes } from '../../src/graph/onnx-proto.js';
import { openSdxlCheckpoint } from '../../src/pipelines/sdxl/checkpoint/checkpoint.js';
import { buildSdxlNetworks } from '../../src/pipelines/sdxl/weights.js';
import { openWanCheckpoint } from '../../src/pipelines/wan/checkpoint/checkpoint.js';
import { buildWanNetworks } from '../../src/pipelines/wan/weights.js';
import { createSession } from '../../src/runtime/session.js';
import { hashTensor } from '../../src/synthetic/hash-weights.js';
import type { SyntheticWanSize } from '../../src/synthetic/sizes.js';
import { cpuBackend } from '../support/cpu-backend.js';
import { sharedTinyWan } from '../support/tiny-wan.js';
import { computedTypes, typeProblems } from '../support/type-problems.js';

const attentions = ['fused', 'decomposed'] as const;

async function sdxlGraphs(compute: ComputeType, attention: (typeof attentions)[number]) {
  const checkpoint = await openSdxlCheckpoint({ path: inject('tinySdxl') });
  const networks = await buildSdxlNetworks(checkpoint, () => [{ attention, compute }]);
  return Object.entries(networks).map(([name, { graph }]) => [name, graph] as const);
}

async function wanGraphs(path: string, compute: ComputeType, attention: (typeof attentions)[number]) {
  const checkpoint = await openWanCheckpoint({ path });
  const networks = await buildWanNetworks(checkpoint, () => [{ attention, compute }]);
  return Object.entries(networks).flatMap(([name, network]) => (network ? [[name, network.graph] as const] : []));
}

function expectOneType(graphs: readonly (readonly [string, Graph])[], compute: ComputeType): void {
  for (const [name, graph] of graphs) {
    expect(typeProblems(graph), name).toEqual([]);
    // Tables are stored in F16 or BF16: their rows are picked before the cast.
    const computed = [...computedTypes(graph)].filter((type) => type !== onnxTypes.f16 && type !== onnxTypes.bf16);
    expect(computed, name).toEqual(compute === 'f32' ? [onnxTypes.f32] : []);
  }
}

describe.each(['f32', 'f16', 'bf16'] as const)('graphs that compute in %s', (compute) => {
  it.each(attentions)('mix no types in any network of SDXL, with %s attention', async (attention) => {
    expectOneType(await sdxlGraphs(compute, attention), compute);
  });

  it.each(['wan-tiny', 'wan-vace-tiny', 'wan-i2v-tiny'] as const satisfies readonly SyntheticWanSize[])(
    'mix no types in any network of %s',
    async (size) => {
      const { path, remove } = await sharedTinyWan('BF16', size);
      for (const attention of attentions) expectOneType(await wanGraphs(path, compute, attention), compute);
      await remove();
    },
  );
});

it('an f16 UNet is accepted by the runtime and predicts what the float32 one does, to half precision', async () => {
  const { unet } = (await openSdxlCheckpoint({ path: inject('tinySdxl') })).config;
  const sizesWidth = 6 * unet.addition_time_embed_dim;
  const feeds = {
    latents: [1, 4, 8, 8],
    timestep: [1, unet.block_out_channels[0] ?? 0],
    sizes: [1, sizesWidth],
    context: [1, 77, unet.cross_attention_dim],
    pooled: [1, unet.projection_class_embeddings_input_dim - sizesWidth],
  };
  const run = async (compute: ComputeType) => {
    const graph = new Map(await sdxlGraphs(compute, 'fused')).get('unet');
    if (graph === undefined) throw new Error('no UNet');
    const session = await createSession(graph, cpuBackend);
    const fed = Object.entries(feeds).map(([name, shape]) => [name, { data: hashTensor(name, shape), shape }]);
    const { noise = new Float32Array() } = await session.run(Object.fromEntries(fed));
    await session.release();
    return noise;
  };
  const [full, half] = [await run('f32'), await run('f16')];
  const largest = Math.max(...full.map(Math.abs));
  const error = Math.max(...half.map((value, i) => Math.abs(value - (full[i] ?? 9))));
  expect(error).toBeGreaterThan(0);
  expect(error / largest).toBeLessThan(0.02);
});

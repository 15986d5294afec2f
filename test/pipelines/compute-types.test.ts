import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, inject, it } from 'vitest';
import type { ComputeType } from '../../src/graph/dialect.js';
import type { Graph } from '../../src/graph/graph.js';
import { onnxTypes } from '../../src/graph/onnx-proto.js';
import { openSdxlCheckpoint, type SdxlSource } from '../../src/pipelines/sdxl/checkpoint/checkpoint.js';
import { zeroResiduals } from '../../src/pipelines/sdxl/control/controlnet.js';
import { buildSdxlNetworks } from '../../src/pipelines/sdxl/weights.js';
import { openWanCheckpoint } from '../../src/pipelines/wan/checkpoint/checkpoint.js';
import { buildWanNetworks } from '../../src/pipelines/wan/weights.js';
import { createSession } from '../../src/runtime/session.js';
import { hashTensor } from '../../src/synthetic/hash-weights.js';
import { writeSyntheticImageEncoder, writeSyntheticIpAdapter } from '../../src/synthetic/ip-adapter.js';
import type { SyntheticWanSize } from '../../src/synthetic/sizes.js';
import { cpuBackend } from '../support/cpu-backend.js';
import { encodedGraph } from '../support/encoded-graph.js';
import { sharedTinyWan } from '../support/tiny-wan.js';
import { computedOps, typeProblems } from '../support/type-problems.js';

const attentions = ['fused', 'chunked', 'decomposed'] as const;

async function sdxlGraphs(
  compute: ComputeType,
  attention: (typeof attentions)[number],
  more: Pick<SdxlSource, 'ipAdapter' | 'ipAdapterEncoder'> = {},
) {
  const checkpoint = await openSdxlCheckpoint({ path: inject('wholeSdxl'), ...more });
  const networks = await buildSdxlNetworks(checkpoint, () => [{ attention, compute }]);
  return Object.entries(networks).flatMap(([name, network]) => (network ? [[name, network.graph] as const] : []));
}

async function wanGraphs(path: string, compute: ComputeType, attention: (typeof attentions)[number]) {
  const checkpoint = await openWanCheckpoint({ path });
  const networks = await buildWanNetworks(checkpoint, () => [{ attention, compute }]);
  return Object.entries(networks).flatMap(([name, network]) => (network ? [[name, network.graph] as const] : []));
}

function expectNoMixture(graphs: readonly (readonly [string, Graph])[]): void {
  for (const [name, graph] of graphs) expect(typeProblems(graph), name).toEqual([]);
}

/** Ops that take nearly all of a network's time. */
const HEAVY = ['Conv', 'Gemm', 'MatMul', 'MultiHeadAttention'];

/** Their number among those that compute in float32. */
function heavyInFloat32(graph: Graph): Readonly<Record<string, number>> {
  const ops = computedOps(graph).get(onnxTypes.f32) ?? new Map<string, number>();
  return Object.fromEntries([...ops].filter(([op]) => HEAVY.includes(op)));
}

describe.each(['f32', 'f16', 'bf16'] as const)('graphs that compute in %s', (compute) => {
  it.each(attentions)('mix no types in any network of SDXL, with %s attention', async (attention) => {
    const graphs = await sdxlGraphs(compute, attention);
    expectNoMixture(graphs);
    if (compute === 'f32') return;
    for (const [name, graph] of graphs) expect(heavyInFloat32(graph), name).toEqual({});
  });

  it.each(['sdxl-ip-adapter-tiny', 'sdxl-ip-adapter-plus-tiny'] as const)('mix no types with %s', async (size) => {
    const folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
    try {
      const paths = { ipAdapter: join(folder, 'adapter.safetensors'), ipAdapterEncoder: join(folder, 'encoder') };
      await writeSyntheticIpAdapter(paths.ipAdapter, size);
      await writeSyntheticImageEncoder(paths.ipAdapterEncoder, 'clip-image-encoder-tiny');
      for (const attention of attentions) {
        const graphs = await sdxlGraphs(compute, attention, paths);
        expectNoMixture(graphs);
        if (compute === 'f32') continue;
        for (const [name, graph] of graphs) expect(heavyInFloat32(graph), name).toEqual({});
      }
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it.each(['wan-tiny', 'wan-vace-tiny', 'wan-i2v-tiny'] as const satisfies readonly SyntheticWanSize[])(
    'mix no types in any network of %s',
    async (size) => {
      const { path, remove } = await sharedTinyWan('BF16', size);
      for (const attention of attentions) {
        const graphs = await wanGraphs(path, compute, attention);
        expectNoMixture(graphs);
        if (compute === 'f32') continue;
        for (const [name, graph] of graphs) {
          if (name.startsWith('transformer_')) continue;
          // Patches; the embedding of times, their projection for the blocks, and the way out.
          const patches = size === 'wan-vace-tiny' ? 2 : 1;
          expect(heavyInFloat32(graph), name).toEqual(name === 'transformer' ? { Conv: patches, Gemm: 4 } : {});
        }
      }
      await remove();
    },
  );

  it('hold no copy of a weight that is stored in the type', async () => {
    if (compute === 'f32') return;
    const { path, remove } = await sharedTinyWan(compute === 'f16' ? 'F16' : 'BF16');
    const graph = new Map(await wanGraphs(path, compute, 'fused')).get('transformer');
    const casts =
      graph &&
      encodedGraph(graph).nodes.filter(
        ({ op, inputs }) => op === 'Cast' && /blocks.*(to_.|ffn).*\.weight$/.test(inputs[0] ?? ''),
      );
    expect(casts).toEqual([]);
    await remove();
  });
});

it('an f16 UNet is accepted by the runtime and predicts what the float32 one does, to half precision', async () => {
  const { unet } = (await openSdxlCheckpoint({ path: inject('wholeSdxl') })).config;
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
    const { noise = new Float32Array() } = await session.run({ ...Object.fromEntries(fed), ...zeroResiduals(unet) });
    await session.release();
    return noise;
  };
  const [full, half] = [await run('f32'), await run('f16')];
  const largest = Math.max(...full.map(Math.abs));
  const error = Math.max(...half.map((value, i) => Math.abs(value - (full[i] ?? 9))));
  expect(error).toBeGreaterThan(0);
  expect(error / largest).toBeLessThan(0.02);
});

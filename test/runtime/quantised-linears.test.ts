import { readdir, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, inject, it } from 'vitest';
import type { WeightUpdate } from '../../src/graph/weight-update.js';
import type { Network } from '../../src/pipelines/common/build-networks.js';
import { openSdxlCheckpoint } from '../../src/pipelines/sdxl/checkpoint/checkpoint.js';
import { createSdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';
import { buildSdxlNetworks } from '../../src/pipelines/sdxl/weights.js';
import { openWanCheckpoint } from '../../src/pipelines/wan/checkpoint/checkpoint.js';
import { buildWanNetworks } from '../../src/pipelines/wan/weights.js';
import { QuantisedLinears } from '../../src/runtime/model-cache/quantised-linears.js';
import { expectedDialects } from '../../src/runtime/precision.js';
import { findAsset } from '../../src/synthetic/assets.js';
import { quantiseRows } from '../../src/weights/quantise-rows.js';
import { cpuBackend } from '../support/cpu-backend.js';
import { tempFolder } from '../support/temp-folder.js';

const dialectsOf = expectedDialects('cpu', 'fp32');

function linearsIn(folder: string, maxBytes = 1e9) {
  const lines: string[] = [];
  return { quantised: new QuantisedLinears({ folder, maxBytes, log: (line) => lines.push(line) }), lines, folder };
}

function integerProducts({ graph }: Network): number {
  return graph.anatomy.nodes.filter(({ op }) => op === 'DynamicQuantizeMatMul').length;
}

describe('quantiseRows()', () => {
  it('rounds each row by its own largest magnitude, and transposes', () => {
    const { transposed, scales } = quantiseRows(Float32Array.of(127, -63.4, 0, 0, -1, 0.5), 3);
    expect([...scales]).toEqual([1, 1, Math.fround(1 / 127)]);
    expect([...transposed]).toEqual([127, 0, -127, -63, 0, 64]);
  });

  it.each([Number.NaN, Number.NEGATIVE_INFINITY])('shows %s in the scale of its row', (value) => {
    const { scales } = quantiseRows(Float32Array.of(1, value, 1, 1), 2);
    expect([...scales].map(Number.isFinite)).toEqual([false, true]);
  });

  it('is off by half a step at most', () => {
    const matrix = Float32Array.from({ length: 1000 }, (_, i) => Math.sin(i * i) * 10 ** (i % 7));
    const { transposed, scales } = quantiseRows(matrix, 10);
    for (const [i, value] of matrix.entries()) {
      const [row, column] = [Math.floor(i / 100), i % 100];
      const scale = scales[row] ?? 0;
      expect(Math.abs((transposed[column * 10 + row] ?? 0) * scale - value)).toBeLessThanOrEqual(0.5001 * scale);
    }
  });
});

describe('linear layers in 8 bits', () => {
  it('are those of the transformer blocks, in both families', async () => {
    const { quantised } = linearsIn(await tempFolder());
    const sdxl = await openSdxlCheckpoint({ path: inject('tinySdxl') });
    const { unet, text_encoder: text } = await buildSdxlNetworks(sdxl, dialectsOf, { quantised });
    const blocks = [...unet.weights.wanted.keys()].filter((key) => /transformer_blocks\.\d+\.norm1\.weight$/.test(key));
    // q, k, v and the way out of two attentions; both layers of the feed-forward.
    expect(integerProducts(unet)).toBe(10 * blocks.length);
    expect(integerProducts(text)).toBe(0);
    const wan = await openWanCheckpoint({ path: inject('tinyWan') });
    const { transformer } = await buildWanNetworks(wan, dialectsOf, { quantised });
    expect(integerProducts(transformer)).toBe(10 * wan.config.transformer.num_layers);
    expect(transformer.weights.spare).toEqual([]);
  });

  it('stay as they are where a LoRA changes them', async () => {
    const { quantised } = linearsIn(await tempFolder());
    const checkpoint = await openSdxlCheckpoint({ path: inject('tinySdxl') });
    const plain = await buildSdxlNetworks(checkpoint, dialectsOf, { quantised });
    const key = [...plain.unet.weights.linears.keys()].find((name) => name.endsWith('attn1.to_q.weight')) ?? '';
    const updates = new Map([['unet', new Map([[key, [] as WeightUpdate[]]])]]);
    const { unet } = await buildSdxlNetworks(checkpoint, dialectsOf, { quantised, updates });
    expect(integerProducts(unet)).toBe(integerProducts(plain.unet) - 1);
  });

  it('are written once, and again where the entry is damaged', async () => {
    const { quantised, lines, folder } = linearsIn(join(await tempFolder(), 'cache'));
    const checkpoint = await openSdxlCheckpoint({ path: inject('tinySdxl') });
    const build = () => buildSdxlNetworks(checkpoint, dialectsOf, { quantised });
    await build();
    await build();
    expect(lines).toEqual([expect.stringMatching(/^int8: \d+ linear layers of unet were written$/)]);
    const [entry = ''] = await readdir(folder);
    const weights = join(folder, entry, 'weights.bin');
    const { size } = await stat(weights);
    await truncate(weights, size - 1);
    expect(integerProducts((await build()).unet)).toBeGreaterThan(0);
    expect(lines).toHaveLength(2);
    expect((await stat(weights)).size).toBe(size);
  });

  it('compute in float32 where there is no room for them, and the log says so', async () => {
    const { quantised, lines } = linearsIn(await tempFolder(), 1000);
    const checkpoint = await openSdxlCheckpoint({ path: inject('tinySdxl') });
    expect(integerProducts((await buildSdxlNetworks(checkpoint, dialectsOf, { quantised })).unet)).toBe(0);
    expect(lines).toEqual([
      expect.stringMatching(/^int8: the linear layers of unet compute in float32, it would take .*the cache may have/),
    ]);
  });

  it('draw what float32 draws, of a trained model', async () => {
    const { quantised } = linearsIn(await tempFolder());
    const path = await findAsset('demo-sdxl');
    const images: Uint8Array[] = [];
    const precisions: string[] = [];
    for (const backend of [cpuBackend, { ...cpuBackend, quantised }]) {
      const pipeline = await createSdxlPipeline({ path, backend });
      const texts = { prompt: 'a red circle on a blue background', negativePrompt: undefined };
      const size = { width: 128, height: 128, steps: 8, guidanceScale: 4 };
      const request = { ...texts, ...size, scheduler: 'euler' as const, seeds: [3] };
      for await (const event of pipeline.generate([{ request, signal: new AbortController().signal }])) {
        if (event.kind === 'image') images.push(event.rgb);
      }
      precisions.push(pipeline.info.precisions?.find(({ network }) => network === 'unet')?.precision ?? '');
      await pipeline.dispose();
    }
    expect(precisions).toEqual(['fp32', 'int8']);
    const [plain = new Uint8Array(), rounded = new Uint8Array()] = images;
    expect(rounded).not.toEqual(plain);
    const difference = plain.reduce((sum, value, i) => sum + Math.abs(value - (rounded[i] ?? 0)), 0) / plain.length;
    // 0.1 to 0.8 were measured; a wrong scale or order of a matrix gives another picture.
    expect(difference).toBeLessThan(3);
  });
});

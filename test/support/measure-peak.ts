/**
 * Prints the computed and the measured peak of one run of a VAE of released size on the CPU: bytes of feeds, values and results.
 */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { InferenceSession, Tensor } from 'onnxruntime-node';
import { graphMemory } from '../../src/graph/graph-memory.js';
import { sizeOf } from '../../src/graph/shape.js';
import { openSdxlCheckpoint } from '../../src/pipelines/sdxl/checkpoint/checkpoint.js';
import { buildSdxlNetworks } from '../../src/pipelines/sdxl/weights.js';
import { openWanCheckpoint } from '../../src/pipelines/wan/checkpoint/checkpoint.js';
import { buildWanNetworks } from '../../src/pipelines/wan/weights.js';
import { expectedDialects } from '../../src/runtime/precision.js';
import { writeSyntheticSdxl } from '../../src/synthetic/sdxl.js';
import type { SyntheticWanSize } from '../../src/synthetic/sizes.js';
import { writeSyntheticWan } from '../../src/synthetic/wan.js';

const folder = join(tmpdir(), `darkroom-peak-${process.pid}`);
/** A decoder, and sides in pixels: of the first run, and of the one that is measured. */
const kinds = {
  sdxl: { first: 64, side: 256, decoder: sdxlDecoder },
  wan: { first: 32, side: 112, decoder: () => wanDecoder('wan-1.3b') },
  'wan-2.2': { first: 32, side: 160, decoder: () => wanDecoder('wan-ti2v-5b') },
} as const;

const kind = kinds[process.argv[2] as keyof typeof kinds];
try {
  const decoder = await kind.decoder();
  const { graph } = decoder;
  const sizesOf = (side: number) => decoder.sizes({ width: side, height: side, frames: 1, rows: 1 });
  const sizes = sizesOf(kind.side);
  const session = await InferenceSession.create(
    graph.encode((file) => file.slice(folder.length + 1)),
    {
      executionProviders: ['cpu'],
      graphOptimizationLevel: 'all',
      intraOpNumThreads: 1,
      enableMemPattern: false,
      extra: { session: { model_external_initializers_file_folder_path: folder } },
    },
  );
  const feedsOf = (of: Readonly<Record<string, number>>) =>
    graph.inputs.map(({ name, type, shape }) => {
      const dims = shape.map((dim) => sizeOf(dim, of));
      const length = dims.reduce((a, b) => a * b, 1);
      if (type === 'i64') return [name, new Tensor('int64', new BigInt64Array(length), dims)] as const;
      return [name, new Tensor('float32', new Float32Array(length).fill(0.5), dims)] as const;
    });
  // What a first run takes once is no part of the peak.
  await session.run(Object.fromEntries(feedsOf(sizesOf(kind.first))));
  const feeds = feedsOf(sizes);
  const feedBytes = feeds.reduce((sum, [, { data }]) => sum + data.byteLength, 0);
  globalThis.gc?.();
  // Begins a new peak. https://man7.org/linux/man-pages/man5/proc_pid_clear_refs.5.html
  await writeFile('/proc/self/clear_refs', '5');
  const before = await resident('VmRSS');
  const results = await session.run(Object.fromEntries(feeds));
  // The binding copies results.
  const copies = Object.values(results).reduce((sum, { data }) => sum + (data as Float32Array).byteLength, 0);
  const measured = (await resident('VmHWM')) - before + feedBytes - copies;
  const computed = graphMemory(graph, sizes).peakBytes;
  process.stdout.write(`${JSON.stringify({ computed, measured })}\n`);
} finally {
  await rm(folder, { recursive: true, force: true });
}

async function sdxlDecoder() {
  await writeSyntheticSdxl(folder, 'sdxl-base', 'F16', true);
  const checkpoint = await openSdxlCheckpoint({ path: folder });
  return (await buildSdxlNetworks(checkpoint, expectedDialects('cpu', 'fp32'))).vae_decoder;
}

async function wanDecoder(size: SyntheticWanSize) {
  await writeSyntheticWan(folder, size, 'BF16', true);
  const checkpoint = await openWanCheckpoint({ path: folder });
  return (await buildWanNetworks(checkpoint, expectedDialects('cpu', 'fp32'))).vae_decoder_later;
}

async function resident(field: 'VmRSS' | 'VmHWM'): Promise<number> {
  const status = await readFile('/proc/self/status', 'utf8');
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1]) * 1024;
}

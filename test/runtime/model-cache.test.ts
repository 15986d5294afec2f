import { createHash } from 'node:crypto';
import { mkdir, open, readdir, rename, stat, truncate, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { describe, expect, inject, it } from 'vitest';
import { Graph } from '../../src/graph/graph.js';
import type { Network } from '../../src/pipelines/common/build-networks.js';
import { NetworkOpener } from '../../src/pipelines/common/network-opener.js';
import { testFeeds } from '../../src/pipelines/common/test-feeds.js';
import { openSdxlCheckpoint } from '../../src/pipelines/sdxl/checkpoint/checkpoint.js';
import { buildSdxlNetworks } from '../../src/pipelines/sdxl/weights.js';
import { openWanCheckpoint } from '../../src/pipelines/wan/checkpoint/checkpoint.js';
import { buildWanNetworks } from '../../src/pipelines/wan/weights.js';
import type { Backend } from '../../src/runtime/backend.js';
import { CacheFolder } from '../../src/runtime/model-cache/cache-folder.js';
import { ModelCache } from '../../src/runtime/model-cache/model-cache.js';
import { expectedDialects } from '../../src/runtime/precision.js';
import { openRuntime } from '../../src/runtime/runtime.js';
import { CarriedTensors, createSession, type NetworkSession } from '../../src/runtime/session.js';
import { hashTensor } from '../../src/synthetic/hash-weights.js';
import { writeSyntheticWan } from '../../src/synthetic/wan.js';
import { tempFolder } from '../support/temp-folder.js';

const GIGABYTE = 1e9;
/** A matrix of more than a MiB in float32: smaller ones are not packed by the cache. */
const SIDE = 520;

interface Cached {
  readonly cache: ModelCache;
  /** Lines that it logged. */
  readonly lines: string[];
  readonly folder: string;
}

function cacheIn(folder: string, limits: { maxBytes?: number; keptMs?: number } = {}): Cached {
  const lines: string[] = [];
  const log = (line: string) => lines.push(line.replace(/[0-9a-f]{64}/, 'KEY').replace(/\d+ ms/, 'N ms'));
  return { cache: new ModelCache({ folder, maxBytes: GIGABYTE, ...limits, log }), lines, folder };
}

async function backendOf(name: 'native' | 'binding', cache?: ModelCache): Promise<Backend> {
  const dialectsOf = expectedDialects('cpu', 'fp32');
  return { provider: 'cpu', deviceId: 0, threads: 1, runtime: await openRuntime(name), dialectsOf, cache };
}

/** A file of one float16 matrix. */
async function writeMatrix(folder: string, name: string): Promise<string> {
  const file = join(folder, `${name}.bin`);
  // Bits of 1 to 2: finite, and different in each file.
  const bits = hashTensor(name, [SIDE * SIDE]).map((value) => 0x3c00 + Math.floor(512 * (value + 1)));
  await writeFile(file, Uint16Array.from(bits));
  return file;
}

/** y = x * matrix^T + 0.5 */
function layer(file: string): Graph {
  const graph = new Graph('layer', { attention: 'fused', compute: 'f32' });
  const stored = graph.external('w', 'f16', [SIDE, SIDE], { file, offset: 0, length: 2 * SIDE * SIDE });
  const bias = graph.constant(new Float32Array(SIDE).fill(0.5), [SIDE]);
  const inputs = [graph.floatInput('x', ['B', SIDE]), graph.cast(stored, 'f32'), bias];
  graph.output('y', graph.node('Gemm', inputs, ['B', SIDE], { attributes: { transB: 1 } }));
  return graph;
}

/** Digests of all outputs of a run over noise. */
async function outputOf(
  session: NetworkSession,
  network: Pick<Network, 'graph' | 'sizes'>,
): Promise<Readonly<Record<string, string>>> {
  const carried = new CarriedTensors();
  try {
    const outputs = await session.run(testFeeds(network), { carried });
    const digests = Object.entries(outputs).map(([name, values]) => {
      const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
      return [name, createHash('sha256').update(bytes).digest('hex')];
    });
    return Object.fromEntries(digests);
  } finally {
    carried.release();
    await session.release();
  }
}

async function run(graph: Graph, backend: Backend, isCached = true) {
  return outputOf(await createSession(graph, backend, { isCached }), { graph, sizes: () => ({}) });
}

async function entriesIn(folder: string): Promise<readonly string[]> {
  return (await readdir(folder)).sort();
}

/** All networks of the families, by `family network`. */
async function tinyNetworks(): Promise<ReadonlyMap<string, Network>> {
  const dialectsOf = expectedDialects('cpu', 'fp32');
  const imageToVideo = await writeSyntheticWan(join(await tempFolder(), 'wan'), 'wan-i2v-tiny');
  const graphs = {
    sdxl: await buildSdxlNetworks(await openSdxlCheckpoint({ path: inject('tinySdxl') }), dialectsOf),
    wan: await buildWanNetworks(await openWanCheckpoint({ path: inject('tinyWan') }), dialectsOf),
    i2v: await buildWanNetworks(await openWanCheckpoint({ path: imageToVideo }), dialectsOf),
  };
  return new Map(
    Object.entries(graphs).flatMap(([family, networks]) =>
      Object.entries(networks).flatMap(([name, network]): [string, Network][] =>
        network === undefined ? [] : [[`${family} ${name}`, network]],
      ),
    ),
  );
}

describe('outputs with a model cache', () => {
  it.each([
    ['native', /./],
    ['binding', /^sdxl/],
  ] as const)('are equal to the last bit for every network, %s runtime', async (runtime, which) => {
    const { cache, lines } = cacheIn(join(await tempFolder(), 'cache'));
    const [plain, cached] = [await backendOf(runtime), await backendOf(runtime, cache)];
    const networks = [...(await tinyNetworks())].filter(([name]) => which.test(name));
    expect(networks.length).toBeGreaterThan(runtime === 'native' ? 18 : 4);
    for (const [name, network] of networks) {
      const expected = await outputOf(await new NetworkOpener(plain, []).open(network), network);
      // The first one writes the entry, the second one finds it.
      for (const time of ['first', 'second']) {
        const output = await outputOf(await new NetworkOpener(cached, []).open(network), network);
        expect(output, `${name}, ${time}`).toEqual(expected);
      }
    }
    expect(lines.filter((line) => line.includes('without it'))).toEqual([]);
  });

  it('are equal with another number of threads than the entry was written with', async () => {
    const folder = await tempFolder();
    const graph = layer(await writeMatrix(folder, 'a'));
    const { cache, lines } = cacheIn(join(folder, 'cache'));
    await run(graph, await backendOf('native', cache));
    const two = { ...(await backendOf('native', cache)), threads: 2 };
    expect(await run(graph, two)).toEqual(await run(graph, two, false));
    expect(lines.at(-1)).toBe('model cache: layer is opened from KEY');
  });
});

describe('an entry of the model cache', () => {
  it('is written once and found by both runtimes', async () => {
    const folder = await tempFolder();
    const graph = layer(await writeMatrix(folder, 'a'));
    const { cache, lines } = cacheIn(join(folder, 'cache'));
    for (const runtime of ['native', 'binding', 'native'] as const) await run(graph, await backendOf(runtime, cache));
    const opened = 'model cache: layer is opened from KEY';
    expect(lines).toEqual(['model cache: layer was written in N ms', opened, opened, opened]);
    expect(await entriesIn(join(folder, 'cache'))).toEqual([expect.stringMatching(/^[0-9a-f]{64}$/)]);
  });

  it('is another one for other weights of the same size and time, another graph, or unpacked weights', async () => {
    const folder = await tempFolder();
    const { cache, folder: entries } = cacheIn(join(folder, 'cache'));
    const backend = await backendOf('native', cache);
    const file = await writeMatrix(folder, 'a');
    const time = new Date(0);
    await utimes(file, time, time);
    const before = await run(layer(file), backend);
    await rename(await writeMatrix(folder, 'b'), file);
    await utimes(file, time, time);
    expect(await run(layer(file), backend)).not.toEqual(before);
    const other = layer(file);
    other.output('more', other.floatInput('z', [4]));
    await run(other, backend);
    const unpacked = await createSession(layer(file), backend, { isCached: true, packsWeights: false });
    await unpacked.release();
    expect(await entriesIn(entries)).toHaveLength(4);
  });

  it.each([
    ['cut off', async (path: string) => truncate(join(path, 'weights.bin'), 4096)],
    ['of another weights file', async (path: string) => overwrite(join(path, 'weights.bin'), 8192)],
    ['of another graph', async (path: string) => overwrite(join(path, 'model.onnx'), 64)],
    ['without a description', async (path: string) => truncate(join(path, 'entry.json'), 0)],
    ['with a huge description', async (path: string) => truncate(join(path, 'entry.json'), 2 ** 30)],
    ['of another key', async (path: string) => writeFile(join(path, 'entry.json'), '{"key":"a","model":"b"}')],
  ])('that is %s is written anew', async (_, damage) => {
    const folder = await tempFolder();
    const graph = layer(await writeMatrix(folder, 'a'));
    const { cache, lines } = cacheIn(join(folder, 'cache'));
    const backend = await backendOf('native', cache);
    const expected = await run(graph, backend);
    const [entry = ''] = await entriesIn(join(folder, 'cache'));
    await damage(join(folder, 'cache', entry));
    lines.length = 0;
    expect(await run(graph, backend)).toEqual(expected);
    expect(lines).toEqual([
      expect.stringMatching(/^model cache: the entry KEY of layer is written anew, /),
      'model cache: layer was written in N ms',
      'model cache: layer is opened from KEY',
    ]);
    expect(await entriesIn(join(folder, 'cache'))).toEqual([entry]);
  });
});

async function overwrite(path: string, offset: number): Promise<void> {
  const file = await open(path, 'r+');
  await file.write(new Uint8Array(64).fill(7), 0, 64, offset);
  await file.close();
}

describe('the folder of the model cache', () => {
  it('keeps to its size: what was not used for the longest time is removed, what was used lately stays', async () => {
    const folder = await tempFolder();
    // An entry takes 2 MiB: the matrix in float32, as it was and packed. So two have room.
    const limits = { maxBytes: 5 * 2 ** 20, keptMs: 60_000 };
    const { cache, lines, folder: entries } = cacheIn(join(folder, 'cache'), limits);
    const backend = await backendOf('native', cache);
    const [a, b, c] = await Promise.all(['a', 'b', 'c'].map(async (name) => layer(await writeMatrix(folder, name))));
    await run(a as Graph, backend);
    const [first = ''] = await entriesIn(entries);
    await run(b as Graph, backend);
    const both = await entriesIn(entries);
    await run(c as Graph, backend);
    expect(lines.at(-1)).toBe(
      'model cache: layer is opened without it, the entries that were used lately leave no room',
    );
    expect(await entriesIn(entries)).toEqual(both);
    const long = new Date(Date.now() - 3_600_000);
    for (const file of await readdir(join(entries, first))) await utimes(join(entries, first, file), long, long);
    await run(c as Graph, backend);
    expect(await entriesIn(entries)).toHaveLength(2);
    expect(await entriesIn(entries)).not.toContain(first);
    expect(await new CacheFolder({ folder: entries, ...limits }).measure()).toMatchObject({ entries: 2 });
  });

  it('takes no entry that is larger than it may be', async () => {
    const folder = await tempFolder();
    const { cache, lines } = cacheIn(join(folder, 'cache'), { maxBytes: 2 ** 20 });
    await run(layer(await writeMatrix(folder, 'a')), await backendOf('native', cache));
    expect(lines).toEqual([
      'model cache: layer is opened without it, it would take 0.002 GB, the cache may have 0.001 GB',
    ]);
  });

  it('is not needed: where it cannot be made, sessions are opened without it', async () => {
    const folder = await tempFolder();
    const graph = layer(await writeMatrix(folder, 'a'));
    await writeFile(join(folder, 'cache'), 'a file');
    const { cache, lines } = cacheIn(join(folder, 'cache'));
    const backend = await backendOf('native', cache);
    expect(await run(graph, backend)).toEqual(await run(graph, backend, false));
    expect(lines).toEqual([expect.stringMatching(/^model cache: layer is opened without it, (EEXIST|ENOTDIR)/)]);
  });

  it('leaves an entry to the engine that writes it, until that engine has ended', async () => {
    const folder = await tempFolder();
    const { cache, lines, folder: entries } = cacheIn(join(folder, 'cache'));
    const backend = await backendOf('native', cache);
    const graph = layer(await writeMatrix(folder, 'a'));
    await run(graph, backend);
    const [key = ''] = await entriesIn(entries);
    const part = join(entries, `${key}.part`);
    await rename(join(entries, key), part);
    await writeFile(join(part, 'owner'), `${hostname()} ${process.pid}`);
    await run(graph, backend);
    expect(lines.at(-1)).toBe('model cache: layer is opened without it, another engine writes it');
    // No process has this id: Linux ends at 2^22.
    await writeFile(join(part, 'owner'), `${hostname()} ${2 ** 22 + 1}`);
    await mkdir(join(entries, `${key}.1.removed`));
    await run(graph, backend);
    expect(await entriesIn(entries)).toEqual([key]);
  });

  it('has one whole entry after two caches wrote it at once', async () => {
    const folder = await tempFolder();
    const graph = layer(await writeMatrix(folder, 'a'));
    const caches = [cacheIn(join(folder, 'cache')), cacheIn(join(folder, 'cache'))];
    const outputs = await Promise.all(caches.map(async ({ cache }) => run(graph, await backendOf('native', cache))));
    expect(outputs[0]).toEqual(outputs[1]);
    expect(await entriesIn(join(folder, 'cache'))).toHaveLength(1);
    const { cache, lines } = cacheIn(join(folder, 'cache'));
    await run(graph, await backendOf('native', cache));
    expect(lines).toEqual(['model cache: layer is opened from KEY']);
  });

  it('reports why it cannot be written, before it is there', async () => {
    const folder = await tempFolder();
    const problemOf = (path: string) => new CacheFolder({ folder: path, maxBytes: GIGABYTE }).problem();
    expect(await problemOf(join(folder, 'a', 'b'))).toBeUndefined();
    expect(await readdir(folder)).toEqual([]);
    await writeFile(join(folder, 'file'), '');
    expect(await problemOf(join(folder, 'file'))).toBe(`${join(folder, 'file')} is no folder`);
  });

  it('is for its owner alone', async () => {
    const folder = await tempFolder();
    const { cache, folder: entries } = cacheIn(join(folder, 'cache'));
    await run(layer(await writeMatrix(folder, 'a')), await backendOf('native', cache));
    expect((await stat(entries)).mode & 0o777).toBe(0o700);
  });
});

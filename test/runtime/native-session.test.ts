import { existsSync } from 'node:fs';
import { setTimeout as delay, setImmediate as nextTurn } from 'node:timers/promises';
import { beforeAll, describe, expect, inject, it } from 'vitest';
import type { Provider } from '../../src/device.js';
import { defaultDialect } from '../../src/graph/dialect.js';
import { Graph } from '../../src/graph/graph.js';
import { encodeModel, type OnnxType, opsets } from '../../src/graph/onnx-proto.js';
import { add } from '../../src/graph/ops.js';
import { loadSdxlNetworks } from '../../src/pipelines/sdxl/networks.js';
import { type Backend, openBackend } from '../../src/runtime/backend.js';
import { openNativeSession } from '../../src/runtime/native/native-session.js';
import { OrtError } from '../../src/runtime/native/ort-error.js';
import { type OrtLibrary, openOrtLibrary } from '../../src/runtime/native/ort-library.js';
import { CarriedTensors, createSession, type Feed, type TensorData } from '../../src/runtime/session.js';
import { hashTensor } from '../../src/synthetic/hash-weights.js';
import { seeded } from '../support/seeded.js';

/** Chromium's Vulkan driver on the CPU: WebGPU without a GPU. */
const SWIFTSHADER = '/usr/lib/chromium/vk_swiftshader_icd.json';
const providers: readonly Provider[] = existsSync(SWIFTSHADER) ? ['cpu', 'webgpu'] : ['cpu'];

let library: OrtLibrary;
const native = (provider: Provider): Backend => ({
  provider,
  deviceId: 0,
  threads: 1,
  dialectsOf: () => [{ ...defaultDialect, attention: 'decomposed' }],
  runtime: { name: 'native', library },
});

beforeAll(async () => {
  // Before the library is loaded: the Vulkan loader reads it once.
  process.env.VK_DRIVER_FILES = SWIFTSHADER;
  process.env.XDG_RUNTIME_DIR ??= '/tmp';
  library = await openOrtLibrary();
});

/** A session over the bytes of a model, as a plan gives them. */
function openModel(model: Uint8Array, outputs: readonly string[]) {
  return openNativeSession(library, {
    ...native('cpu'),
    model,
    inputs: ['x'],
    outputs,
    holds: new Map(),
    configEntries: {},
  });
}

/** y = op(x), both of one type: no casts at the borders. */
function identity(type: OnnxType, shape: readonly number[], op = 'Identity'): Uint8Array {
  const graph = {
    name: 'identity',
    nodes: [{ op, domain: '', name: op, inputs: ['x'], outputs: ['y'], attributes: {} }],
    initializers: [],
    inputs: [{ name: 'x', type, shape }],
    outputs: [{ name: 'y', type, shape }],
  } as const;
  return encodeModel({ graph, opset: opsets.default });
}

const SIDE = 256;

/** x, multiplied by itself over and over: seconds of work in short nodes. */
function longGraph(nodes: number, side = SIDE): Graph {
  const graph = new Graph('long', { attention: 'decomposed', compute: 'f32' });
  const x = graph.floatInput('x', [side, side]);
  let y = x;
  for (let i = 0; i < nodes; i += 1) y = graph.node('MatMul', [y, x], [side, side]);
  graph.output('y', y);
  return graph;
}

const feedOf = (side: number): Record<string, Feed> => ({
  x: { data: hashTensor('x', [side, side]).map((value) => value / side), shape: [side, side] },
});
const square = feedOf(SIDE);

/** Minutes of work: a run that is not ended runs into the test's limit. */
const ENDLESS = { graph: longGraph(3000, 1024), feed: feedOf(1024) };

describe('tensors of the native runtime', () => {
  it.each([
    ['f32', Float32Array.of(1.5, -0, Number.NaN, Number.POSITIVE_INFINITY), undefined],
    ['i32', Int32Array.of(1, -2, 2 ** 31 - 1, -(2 ** 31)), undefined],
    ['i64', BigInt64Array.of(1n, -2n, 2n ** 62n, -(2n ** 63n)), undefined],
    ['f16', Uint16Array.of(0x3c00, 0x8000, 0x7c00, 0x0001), 'f16'],
    ['bf16', Uint16Array.of(0x3f80, 0x8000, 0x7f80, 0x0001), 'bf16'],
  ] as const)('%s goes in and comes out bit for bit', async (type, data: TensorData, half) => {
    const session = await openModel(identity(type, [2, 2]), ['y']);
    const { y } = await session.run<TensorData>({ x: { data, shape: [2, 2], ...(half && { half }) } });
    expect(y).toEqual(data);
    await session.release();
  });

  it('keeps an empty tensor empty', async () => {
    const session = await openModel(identity('f32', ['N'] as never), ['y']);
    expect(await session.run({ x: { data: new Float32Array(), shape: [0] } })).toEqual({ y: new Float32Array() });
    await session.release();
  });

  it('reads a view into a larger buffer, and leaves the run untouched by later changes', async () => {
    const session = await openModel(identity('f32', [2]), ['y']);
    const data = Float32Array.of(9, 1, 2, 9).subarray(1, 3);
    const run = session.run({ x: { data, shape: [2] } });
    data.fill(0);
    expect(await run).toEqual({ y: Float32Array.of(1, 2) });
    await session.release();
  });

  it.each(providers)('outputs that are held on %s feed the next run, and another session', async (provider) => {
    const graph = new Graph('held', { attention: 'decomposed', compute: 'f32' });
    const [x, past] = [graph.floatInput('x', [4]), graph.floatInput('past', [4])];
    graph.output('y', add(graph, x, x));
    graph.output('next', add(graph, x, past));
    const session = await createSession(graph, native(provider), { holds: new Map([['next', 'past']]) });
    const reader = new Graph('reader', { attention: 'decomposed', compute: 'f32' });
    const read = reader.floatInput('past', [4]);
    reader.output('twice', add(reader, read, read));
    const other = await createSession(reader, native(provider));

    const carried = new CarriedTensors();
    const feeds = { x: { data: Float32Array.of(1, 2, 3, 4), shape: [4] } };
    const zero = { past: { data: new Float32Array(4), shape: [4] } };
    const expected = { y: Float32Array.of(2, 4, 6, 8) };
    expect(await session.run({ ...feeds, ...zero }, { carried })).toEqual(expected);
    expect(await session.run(feeds, { carried })).toEqual(expected);
    expect(await other.run({}, { carried })).toEqual({ twice: Float32Array.of(4, 8, 12, 16) });
    carried.release();
    await session.release();
    await other.release();
  });
});

describe('runs of the native runtime', () => {
  it.each(providers)('on %s leave the event loop free', async (provider) => {
    const session = await createSession(longGraph(provider === 'cpu' ? 200 : 5), native(provider));
    let turns = 0;
    const timer = setInterval(() => {
      turns += 1;
    }, 1);
    await session.run(square);
    clearInterval(timer);
    // A run that blocks the thread leaves none.
    expect(turns).toBeGreaterThan(3);
    await session.release();
  });

  it('end when their signal is aborted, and the session goes on', async () => {
    const session = await createSession(ENDLESS.graph, native('cpu'));
    for (const reason of [new Error('first'), new Error('second')]) {
      const controller = new AbortController();
      const run = session.run(ENDLESS.feed, { signal: controller.signal });
      await delay(100);
      controller.abort(reason);
      await expect(run).rejects.toBe(reason);
    }
    await session.release();
  });

  it.each(providers)('on %s leave a session that can be used when they were aborted', async (provider) => {
    const session = await createSession(longGraph(3), native(provider));
    const expected = await session.run(square);
    for (let i = 0; i < 5; i += 1) {
      const controller = new AbortController();
      const run = session.run(square, { signal: controller.signal });
      await nextTurn();
      controller.abort(new Error('cancelled'));
      // WebGPU may have all of it in its queue by then, and finishes it.
      await run.catch((error: Error) => expect(error.message).toBe('cancelled'));
    }
    expect(await session.run(square)).toEqual(expected);
    await session.release();
  });

  it('from one thread give the same, and end when their signal is aborted', async () => {
    const pinned = { ...native('cpu'), isPinned: true };
    const [free, session] = [
      await createSession(longGraph(3), native('cpu')),
      await createSession(longGraph(3), pinned),
    ];
    const expected = await free.run(square);
    const all = await Promise.all(Array.from({ length: 8 }, () => session.run(square)));
    for (const outputs of all) expect(outputs).toEqual(expected);
    await expect(session.run({ x: { data: Int32Array.of(1), shape: [1, 1] } })).rejects.toThrow(OrtError);

    const long = await createSession(ENDLESS.graph, pinned);
    const controller = new AbortController();
    const run = long.run(ENDLESS.feed, { signal: controller.signal });
    await delay(100);
    controller.abort(new Error('cancelled'));
    await expect(run).rejects.toThrow('cancelled');
    for (const each of [free, session, long]) await each.release();
  });

  it('does not start a run whose signal is aborted', async () => {
    const session = await createSession(longGraph(1), native('cpu'));
    const signal = AbortSignal.abort(new Error('too late'));
    await expect(session.run(square, { signal })).rejects.toThrow('too late');
    await session.release();
  });

  it('are waited for by release, and refused after it', async () => {
    const session = await createSession(longGraph(200), native('cpu'));
    const run = session.run(square);
    await session.release();
    expect((await run).y).toHaveLength(SIDE * SIDE);
    await expect(session.run(square)).rejects.toThrow('the session was released');
    await session.release();
  });

  it.skipIf(providers.length === 1)('on webgpu take turns, also those of different sessions', async () => {
    const sessions = await Promise.all([3, 3].map((nodes) => createSession(longGraph(nodes), native('webgpu'))));
    const [first, ...others] = await Promise.all(
      sessions.flatMap((session) => [session.run(square), session.run(square)]),
    );
    for (const other of others) expect(other).toEqual(first);
    await Promise.all(sessions.map((session) => session.release()));
  });
});

describe('errors of the native runtime', () => {
  it.each([
    ['no model at all', Buffer.from('this is not a model')],
    ['an empty model', new Uint8Array()],
    ['half a model', identity('f32', [2]).subarray(0, 40)],
    ['an op that does not exist', identity('f32', [2], 'Nonsense')],
    ['an op that does not take the type', identity('i32', [2], 'Erf')],
  ])('%s is refused in one sentence', async (_, model) => {
    const error = await openModel(model, ['y']).catch((problem: unknown) => problem);
    expect(error).toBeInstanceOf(OrtError);
    expect((error as Error).message).toMatch(/^[^\n]{10,1000}$/);
  });

  it('refuses or runs graphs with damaged bytes, and the process lives', async () => {
    const graph = new Graph('damaged', { attention: 'decomposed', compute: 'f32' });
    const x = graph.floatInput('x', ['B', 4]);
    const weights = graph.constant(new Float32Array(16).fill(0.1), [4, 4]);
    graph.output('y', graph.node('Softmax', [graph.node('Gemm', [x, weights], ['B', 4])], ['B', 4]));
    const model = graph.encode((file) => file);
    const random = seeded(1);
    let refused = 0;
    for (let i = 0; i < 500; i += 1) {
      const damaged = Uint8Array.from(model);
      for (let k = random.below(4); k >= 0; k -= 1) damaged[random.below(damaged.length)] = random.below(256);
      try {
        const session = await openModel(damaged, ['y']);
        await session.run({ x: { data: new Float32Array(4), shape: [1, 4] } }).catch(() => undefined);
        await session.release();
      } catch (error) {
        expect(error).toBeInstanceOf(OrtError);
        refused += 1;
      }
    }
    expect(refused).toBeGreaterThan(100);
  });

  it('names what is wrong with the feeds', async () => {
    const session = await openModel(identity('f32', [2]), ['y']);
    const x = { data: Float32Array.of(1, 2), shape: [2] };
    await expect(session.run({ x: { data: Float32Array.of(1), shape: [2] } })).rejects.toThrow(
      'input x has 1 elements, its shape [2] has 2',
    );
    await expect(session.run({})).rejects.toThrow('input x is missing');
    await expect(session.run({ x, z: x })).rejects.toThrow(/z/);
    await expect(session.run({ x: { data: Float32Array.of(1, 2), shape: [2, 1] } })).rejects.toThrow(/rank|shape|dim/i);
    await expect(session.run({ x: { data: Int32Array.of(1, 2), shape: [2] } })).rejects.toThrow(/type/i);
    await expect(session.run({ x }, { outputs: ['nothing'] })).rejects.toThrow(/nothing/);
    expect(await session.run({ x })).toEqual({ y: x.data });
    await session.release();
  });

  it('names a weight file that is not there', async () => {
    const graph = new Graph('weights', { attention: 'decomposed', compute: 'f32' });
    const weight = graph.external('w', 'f32', [4], { file: '/nowhere/weights.safetensors', offset: 0, length: 16 });
    graph.output('y', add(graph, graph.floatInput('x', [4]), weight));
    await expect(createSession(graph, native('cpu'))).rejects.toThrow(/weights\.safetensors/);
  });

  it('names a provider library that does not load', async () => {
    const runtime = { name: 'native', library, providerLibrary: '/nowhere/provider.so' } as const;
    await expect(createSession(longGraph(1), { ...native('webgpu'), runtime })).rejects.toThrow(
      /^the provider library \/nowhere\/provider\.so does not load: .*correct PROVIDER_LIBRARY or unset it$/,
    );
  });
});

describe('the native runtime and the binding', () => {
  it('give the same UNet output to the last bit', async () => {
    const outputs: Float32Array[] = [];
    for (const runtime of ['native', 'binding'] as const) {
      const backend = await openBackend({ provider: 'cpu', threads: 1, runtime });
      const networks = await loadSdxlNetworks({ path: inject('tinySdxl'), backend });
      const size = { height: 8, width: 8 };
      const latents = hashTensor('latents', [2, 4, 8, 8]);
      const { unet } = networks.config;
      const context = hashTensor('context', [2, 77, unet.cross_attention_dim]);
      const pooledWidth = unet.projection_class_embeddings_input_dim - 6 * unet.addition_time_embed_dim;
      const pooled = hashTensor('pooled', [2, pooledWidth]);
      const { noise } = await networks.denoiser.predictNoise({
        ...size,
        latents,
        timestep: 421,
        context,
        pooled,
        timeIds: [0, 1].map(() => [64, 64, 0, 0, 64, 64]),
      });
      outputs.push(noise);
      await networks.release();
    }
    expect(outputs[0]).toEqual(outputs[1]);
  });
});

describe('memory of the native runtime', () => {
  it('does not grow over 1,000 sessions that are run, ended early or fail to open', async () => {
    const resident = async () => {
      await library.heap.trim();
      return process.memoryUsage.rss();
    };
    // 256 KiB in, 256 KiB out: one forgotten tensor a round would be 200 MiB at the end.
    const graph = longGraph(2);
    const once = async (i: number) => {
      await expect(openModel(new Uint8Array(), ['y'])).rejects.toThrow(OrtError);
      const session = await createSession(graph, native('cpu'));
      await session.run(structuredClone(square));
      await expect(session.run({})).rejects.toThrow();
      const controller = new AbortController();
      const run = session.run(structuredClone(square), { signal: controller.signal });
      if (i % 2 === 0) controller.abort(new Error('cancelled'));
      await run.catch(() => undefined);
      await session.release();
    };
    for (let i = 0; i < 200; i += 1) await once(i);
    const before = await resident();
    for (let i = 200; i < 1000; i += 1) await once(i);
    const grown = (await resident()) - before;
    expect(grown / 2 ** 20).toBeLessThan(32);
  });
});

import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { defaultDialect } from '../../src/graph/dialect.js';
import { Graph, type Value } from '../../src/graph/graph.js';
import { chunks, plainLayerNorm, rmsNorm } from '../../src/graph/ops.js';
import {
  channelNorm,
  concatFrames,
  patchEmbedding,
  pointConv,
  rotary,
  slice,
  temporalConv,
  unpatch,
} from '../../src/graph/ops-3d.js';
import { Weights } from '../../src/graph/weights.js';
import { CarriedTensors, createSession, type Feed } from '../../src/runtime/session.js';
import { hashTensor } from '../../src/synthetic/hash-weights.js';
import { writeHashSafetensors } from '../../src/synthetic/write-safetensors.js';
import { readSafetensors } from '../../src/weights/safetensors.js';
import { cpuBackend } from '../support/cpu-backend.js';
import { tempFolder } from '../support/temp-folder.js';

const feed = (name: string, shape: number[]) => ({ data: hashTensor(name, shape), shape });

/** A scope over hash weights of these names and shapes. */
async function weightsOf(tensors: readonly [string, number[]][]): Promise<Weights> {
  const path = join(await tempFolder(), 'weights.safetensors');
  await writeHashSafetensors(path, { dtype: 'F32', hashPrefix: '', tensors });
  return new Weights(new Graph('test', defaultDialect), { ...(await readSafetensors(path)), path });
}

async function run(graph: Graph, feeds: Record<string, Feed>): Promise<Readonly<Record<string, Float32Array>>> {
  const session = await createSession(graph, cpuBackend);
  try {
    return await session.run(feeds);
  } finally {
    await session.release();
  }
}

function expectClose(actual: Float32Array | undefined, expected: ArrayLike<number>): void {
  expect(actual).toHaveLength(expected.length);
  const worst = Math.max(...Array.from(expected, (value, i) => Math.abs(value - (actual?.[i] ?? Number.NaN))));
  expect(worst).toBeLessThan(5e-6);
}

/** [C, T, H, W] from [T, C, H, W], or the other way round. */
function swapped(values: Float32Array, [a = 0, b = 0, h = 0, w = 0]: number[]): Float32Array {
  const plane = h * w;
  return Float32Array.from({ length: values.length }, (_, i) => {
    const [outer, inner] = [Math.floor(i / plane / a), Math.floor(i / plane) % a];
    return values[(inner * b + outer) * plane + (i % plane)] ?? 0;
  });
}

describe('temporalConv', () => {
  it('is Conv3D over three frames', async () => {
    const [channels, outputs, frames, height, width] = [3, 5, 4, 6, 7];
    const weights = await weightsOf([
      ['conv.weight', [outputs, channels, 3, 3, 3]],
      ['conv.bias', [outputs]],
    ]);
    const { graph, root } = weights;
    const x = graph.input('x', 'f32', ['T', channels, 'H', 'W']);
    const before = graph.input('before', 'f32', [2, channels, 'H', 'W']);
    const all = concatFrames(graph, before, x);
    const tap = (start: number, end: number) => slice(graph, all, { axis: 0, start, end }, 'T');
    graph.output('summed', temporalConv(root.at('conv'), [tap(0, -2), tap(1, -1), x], outputs, 3));

    const volume = graph.input('volume', 'f32', [1, channels, 'P', 'H', 'W']);
    const taken = [root.at('conv').tensor('weight', [outputs, channels, 3, 3, 3]), root.at('conv').tensor('bias', [5])];
    const whole = graph.node('Conv', [volume, ...taken], [1, outputs, 'P', 'H', 'W'], {
      attributes: { kernel_shape: [3, 3, 3], pads: [0, 1, 1, 0, 1, 1] },
    });
    graph.output('whole', whole);

    const video = hashTensor('video', [frames + 2, channels, height, width]);
    const frame = channels * height * width;
    const results = await run(graph, {
      before: { data: video.subarray(0, 2 * frame), shape: [2, channels, height, width] },
      x: { data: video.subarray(2 * frame), shape: [frames, channels, height, width] },
      volume: {
        data: swapped(video, [frames + 2, channels, height, width]),
        shape: [1, channels, frames + 2, height, width],
      },
    });
    const want = results.whole ?? new Float32Array();
    expectClose(results.summed, swapped(want, [outputs, frames, height, width]));
  });

  it('leaves out taps that are zeros', async () => {
    const { graph, root } = await weightsOf([
      ['conv.weight', [2, 3, 3, 1, 1]],
      ['conv.bias', [2]],
    ]);
    const x = graph.input('x', 'f32', [1, 3, 'H', 'W']);
    const zeros = graph.input('zeros', 'f32', [1, 3, 'H', 'W']);
    graph.output('short', temporalConv(root.at('conv'), [undefined, undefined, x], 2, 1));
    graph.output('long', temporalConv(root.at('conv'), [zeros, zeros, x], 2, 1));
    const { short, long } = await run(graph, {
      x: feed('x', [1, 3, 2, 2]),
      zeros: { data: new Float32Array(12), shape: [1, 3, 2, 2] },
    });
    expectClose(short, long ?? []);
  });
});

describe('ops of video', () => {
  it('turns neighbouring channels of each head by the angle of their position', async () => {
    const graph = new Graph('test', defaultDialect);
    const x = graph.input('x', 'f32', ['B', 'L', 12]);
    const tables = { cos: graph.input('cos', 'f32', ['L', 3]), sin: graph.input('sin', 'f32', ['L', 3]) };
    graph.output('y', rotary(graph, x, { ...tables, heads: 2 }));
    const angles = Float32Array.from({ length: 5 * 3 }, (_, i) => i * 0.7);
    const feeds = {
      x: feed('x', [2, 5, 12]),
      cos: { data: angles.map(Math.cos), shape: [5, 3] },
      sin: { data: angles.map(Math.sin), shape: [5, 3] },
    };
    const { y } = await run(graph, feeds);
    const source = feeds.x.data;
    const expected = Array.from(source, (value, i) => {
      const angle = angles[(Math.floor(i / 12) % 5) * 3 + (Math.floor(i / 2) % 3)] ?? 0;
      return i % 2 === 0
        ? value * Math.cos(angle) - (source[i + 1] ?? 0) * Math.sin(angle)
        : value * Math.cos(angle) + (source[i - 1] ?? 0) * Math.sin(angle);
    });
    expectClose(y, expected);
  });

  it('puts patches back in their places', async () => {
    // A weight of the identity makes a patch's token its own four latents of each channel.
    const { graph, root } = await weightsOf([
      ['patch.weight', [8, 2, 1, 2, 2]],
      ['patch.bias', [8]],
    ]);
    const grid = ['F', 'h', 'w'];
    const tokens = graph.input('tokens', 'f32', ['B', 'F*h*w', 8]);
    const latents = graph.input('latents', 'f32', ['B', 2, 'F', '2h', '2w']);
    graph.output('embedded', patchEmbedding(root.at('patch'), latents, 8, 2, grid));
    graph.output('video', unpatch(graph, tokens, 2, grid));
    // [B, L, 8] whose elements say batch, token and place: rows, columns, channels of a patch.
    const shape = [2, 3 * 1 * 2, 8];
    const { video, embedded } = await run(graph, {
      tokens: { data: Float32Array.from({ length: 96 }, (_, i) => i), shape },
      latents: feed('latents', [2, 2, 3, 2, 4]),
    });
    expect(embedded).toHaveLength(96);
    const at = (b: number, c: number, f: number, y: number, x: number) => (((b * 2 + c) * 3 + f) * 2 + y) * 4 + x;
    // Batch 1, frame 2, second patch of the row, its second row and first column, channel 1.
    expect(video?.[at(1, 1, 2, 1, 2)]).toBe((1 * 6 + 2 * 2 + 1) * 8 + (1 * 2 + 0) * 2 + 1);
    expect(video?.[at(0, 0, 0, 0, 1)]).toBe(2);
  });

  it('scales the channels of a pixel to the root of their number, and a pixel of zeros to zeros', async () => {
    const { graph, root } = await weightsOf([['norm.gamma', [3, 1, 1]]]);
    graph.output('y', channelNorm(root.at('norm'), graph.input('x', 'f32', ['T', 3, 'H', 'W']), [1, 1]));
    const data = Float32Array.of(1, 0, 2, 0, -2, 0);
    const { y } = await run(graph, { x: { data, shape: [1, 3, 1, 2] } });
    const gamma = hashTensor('norm.gamma', [3, 1, 1]);
    const expected = [1, 0, 2, 0, -2, 0].map(
      (value, i) => (value / 3) * Math.sqrt(3) * (gamma[Math.floor(i / 2)] ?? 0),
    );
    expectClose(y, expected);
  });

  it('norms the last axis: by its root mean square, and without weights', async () => {
    const { graph, root } = await weightsOf([['norm.weight', [4]]]);
    const x = graph.input('x', 'f32', ['B', 4]);
    graph.output('rms', rmsNorm(root.at('norm'), x, { eps: 1e-6 }));
    graph.output('plain', plainLayerNorm(graph, x, { eps: 1e-6 }));
    const { rms, plain } = await run(graph, { x: { data: Float32Array.of(1, 2, 3, 6), shape: [1, 4] } });
    const gain = hashTensor('norm.weight', [4]);
    expectClose(
      rms,
      [1, 2, 3, 6].map((value, i) => (value / Math.sqrt(12.5)) * (gain[i] ?? 0)),
    );
    expectClose(
      plain,
      [1, 2, 3, 6].map((value) => (value - 3) / Math.sqrt(3.5)),
    );
  });

  const misfits: readonly [string, (graph: Graph, x: Value) => unknown, string][] = [
    [
      'rotary',
      (graph, x) => rotary(graph, x, { cos: graph.input('cos', 'f32', [2, 3]), sin: x, heads: 2 }),
      'rotary of x [2, 4, 8] by cos [2, 3]',
    ],
    [
      'concatFrames',
      (graph, x) => concatFrames(graph, graph.input('a', 'f32', [2, 5, 8]), x),
      'a [2, 5, 8] cannot come before [2, 4, 8]',
    ],
    ['chunks', (graph, x) => chunks(graph, x, 3, 2), 'x [2, 4, 8] does not divide into 3 along axis 2'],
    [
      'pointConv',
      (graph, x) => {
        const weights = new Weights(graph, { path: 'nothing', tensors: new Map(), metadata: {} });
        return pointConv(weights.root.at('conv'), x, 2);
      },
      'conv: x [2, 4, 8] must have four dimensions',
    ],
  ];
  it.each(misfits)('%s names the tensor and its shape where it does not fit', (_, build, message) => {
    const graph = new Graph('test', defaultDialect);
    expect(() => build(graph, graph.input('x', 'f32', [2, 4, 8]))).toThrow(message);
  });
});

describe('carried outputs', () => {
  it('are inputs of the next run without being fed', async () => {
    const graph = new Graph('test', defaultDialect);
    const x = graph.input('x', 'f32', ['T', 1]);
    const past = graph.input('past', 'f32', [1, 1]);
    const all = concatFrames(graph, past, x);
    graph.output('next', slice(graph, all, { axis: 0, start: -1 }, 1));
    graph.output('y', all);
    const session = await createSession(graph, cpuBackend, { holds: new Map([['next', 'past']]) });
    const held = new CarriedTensors();
    const zero = { past: { data: Float32Array.of(0), shape: [1, 1] } };
    const first = await session.run({ x: { data: Float32Array.of(1, 2), shape: [2, 1] }, ...zero }, { carried: held });
    const second = await session.run({ x: { data: Float32Array.of(3), shape: [1, 1] } }, { carried: held });
    expect([first, second].map(({ y, ...rest }) => [[...(y ?? [])], rest])).toEqual([
      [[0, 1, 2], {}],
      [[2, 3], {}],
    ]);
    held.release();
    expect(Object.keys(held.tensors)).toEqual([]);
    await session.release();
  });
});

import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { defaultDialect } from '../../src/graph/dialect.js';
import { Graph, type Value } from '../../src/graph/graph.js';
import { add, chunks, plainLayerNorm, rmsNorm } from '../../src/graph/ops.js';
import { channelNorm, patchEmbedding, pointConv, rotary, temporalConv, unpatch } from '../../src/graph/ops-3d.js';
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
    const inputs = Array.from({ length: frames + 2 }, (_, i) =>
      graph.input(`frame.${i}`, 'f32', [1, channels, 'H', 'W']),
    );
    for (let i = 0; i < frames; i += 1) {
      const [before, last, own] = inputs.slice(i, i + 3) as [Value, Value, Value];
      graph.output(`summed.${i}`, temporalConv(root.at('conv'), [before, last, own], outputs, 3));
    }

    const volume = graph.input('volume', 'f32', [1, channels, 'P', 'H', 'W']);
    const taken = [root.at('conv').tensor('weight', [outputs, channels, 3, 3, 3]), root.at('conv').tensor('bias', [5])];
    const whole = graph.node('Conv', [volume, ...taken], [1, outputs, 'P', 'H', 'W'], {
      attributes: { kernel_shape: [3, 3, 3], pads: [0, 1, 1, 0, 1, 1] },
    });
    graph.output('whole', whole);

    const video = hashTensor('video', [frames + 2, channels, height, width]);
    const frame = channels * height * width;
    const shape = [1, channels, height, width];
    const results = await run(graph, {
      ...Object.fromEntries(
        inputs.map(({ name }, i) => [name, { data: video.subarray(i * frame, (i + 1) * frame), shape }]),
      ),
      volume: {
        data: swapped(video, [frames + 2, channels, height, width]),
        shape: [1, channels, frames + 2, height, width],
      },
    });
    const want = swapped(results.whole ?? new Float32Array(), [outputs, frames, height, width]);
    const size = outputs * height * width;
    for (let i = 0; i < frames; i += 1) expectClose(results[`summed.${i}`], want.subarray(i * size, (i + 1) * size));
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
  /** A value that is given away under two names, and one that is an input as well. */
  function sums(compute: 'f32' | 'f16'): Graph {
    const graph = new Graph('test', { ...defaultDialect, compute });
    const x = graph.floatInput('x', [1, 2]);
    const past = graph.carriedInput('past', [1, 2]);
    const sum = add(graph, past, x);
    graph.carriedOutput('next', sum);
    graph.carriedOutput('again', sum);
    graph.carriedOutput('before', past);
    graph.output('y', sum);
    return graph;
  }

  it.each(['f32', 'f16'] as const)('are inputs of the next run without being fed, in %s', async (compute) => {
    const session = await createSession(sums(compute), cpuBackend, { holds: new Map([['next', 'past']]) });
    const held = new CarriedTensors();
    const zero = compute === 'f32' ? new Float32Array(2) : new Uint16Array(2);
    const x = (a: number, b: number) => ({ x: { data: Float32Array.of(a, b), shape: [1, 2] } });
    const wanted = { carried: held, outputs: ['y', 'next'] };
    const first = await session.run({ ...x(1, 2), past: { data: zero, shape: [1, 2] } }, wanted);
    const second = await session.run(x(3, 0.5), wanted);
    expect([first, second].map(({ y, ...rest }) => [[...(y ?? [])], rest])).toEqual([
      [[1, 2], {}],
      [[4, 2.5], {}],
    ]);
    held.release();
    expect(Object.keys(held.tensors)).toEqual([]);
    await session.release();
  });

  it('may all be the same value', async () => {
    const session = await createSession(sums('f32'), cpuBackend);
    const one = { data: Float32Array.of(1, 2), shape: [1, 2] };
    const results = await session.run({ x: one, past: one });
    const [sum, own] = [Float32Array.of(2, 4), Float32Array.of(1, 2)];
    expect(results).toEqual({ next: sum, again: sum, before: own, y: sum });
    await session.release();
  });
});

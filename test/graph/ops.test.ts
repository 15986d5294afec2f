import { describe, expect, it } from 'vitest';
import { defaultDialect } from '../../src/graph/dialect.js';
import { Graph } from '../../src/graph/graph.js';
import { add, attention, concat, conv2d, linear, upsampleTo } from '../../src/graph/ops.js';
import { doubled, halved, product, sameElementCount } from '../../src/graph/shape.js';
import { Weights } from '../../src/graph/weights.js';
import { createSession, type Feed } from '../../src/runtime/session.js';
import { hashTensor } from '../../src/synthetic/hash-weights.js';
import { cpuBackend } from '../support/cpu-backend.js';

const fused = defaultDialect;
const feed = (name: string, shape: number[]): Feed => ({ data: hashTensor(name, shape), shape });

function scopeOfNothing(graph: Graph) {
  return new Weights(graph, { path: 'nothing', tensors: new Map(), metadata: {} }).root.at('block.0');
}

describe('shapes', () => {
  it('names halves and doubles of run-time dimensions', () => {
    expect([halved('H'), halved(7), doubled('H'), doubled('2H'), doubled('ceil(H/2)')]).toEqual([
      'ceil(H/2)',
      4,
      '2H',
      '4H',
      '2ceil(H/2)',
    ]);
  });

  it('halves what was doubled', () => {
    expect([halved('2H'), halved('8H'), halved('3H'), halved(doubled('ceil(H/2)'))]).toEqual([
      'H',
      '4H',
      'ceil(3H/2)',
      'ceil(H/2)',
    ]);
  });

  it('compares products whatever their order', () => {
    expect(product(['W', 2, 'H'])).toBe('2*H*W');
    expect(sameElementCount(['B', 64, 'H', 'W'], ['B', 32, '2*H*W'])).toBe(true);
    expect(sameElementCount(['B', 64, 'H', 'W'], ['B', 32, 'H*W'])).toBe(false);
    expect(sameElementCount(['T', 64, 'H'], ['2T', 32, 'H'])).toBe(true);
    expect([product(['2T']), product(['2T', 'H']), product(['F', '2h', '2w'])]).toEqual(['2T', '2*H*T', '4*F*h*w']);
  });
});

describe('a tensor of a file', () => {
  it('has a name of its own, also where it bears the name of an input', () => {
    const graph = new Graph('names', fused);
    const input = graph.floatInput('x', [2]);
    const file = { file: '/x.safetensors', offset: 0, length: 8 };
    const [tensor, matrix] = [graph.external('x', 'f32', [2], file), graph.external('x', 'f32', [1, 2], file)];
    expect(graph.external('x', 'f32', [2], file)).toBe(tensor);
    expect(new Set([input, tensor, matrix].map(({ name }) => name)).size).toBe(3);
  });
});

describe('ops', () => {
  const cases: readonly [string, (graph: Graph) => unknown, string][] = [
    [
      'add',
      (g) => add(g, g.input('a', 'f32', [2, 3]), g.input('b', 'f32', [2, 4])),
      'Add of a [2, 3] and b [2, 4]: shapes differ',
    ],
    [
      'concat',
      (g) => concat(g, [g.input('a', 'f32', [1, 2]), g.input('b', 'f32', [2, 2])], 1),
      'concat of a [1, 2] and b [2, 2]',
    ],
    ['reshape', (g) => g.reshape(g.input('a', 'f32', ['B', 6]), ['B', 4]), 'a: [B, 6] cannot be reshaped to [B, 4]'],
    [
      'conv2d',
      (g) => conv2d(scopeOfNothing(g), g.input('x', 'f32', ['B', 3]), 4),
      'block.0: x [B, 3] must have four dimensions',
    ],
    [
      'linear',
      (g) => linear(scopeOfNothing(g), g.input('x', 'f32', ['B', 'C']), 4),
      'block.0: x [B, C] has no fixed width',
    ],
  ];
  it.each(cases)('%s names the tensor and both shapes when they do not fit', (_, build, message) => {
    expect(() => build(new Graph('test', fused))).toThrow(message);
  });

  it.each([
    ['a few tokens', { batch: 2, tokens: 5, source: 7, heads: 3 }],
    // 18e6 scores, and 2 ** 24 to a chunk: 2796 queries, and 204 with zeros behind them.
    ['more than a chunk of them', { batch: 2, tokens: 3000, source: 3000, heads: 1 }],
    ['one chunk to the last score', { batch: 1, tokens: 4096, source: 4096, heads: 1 }],
  ])('spells attention over %s in three ways with the same result', async (_, { batch, tokens, source, heads }) => {
    const width = 8 * heads;
    const results: Float32Array[] = [];
    for (const kind of ['fused', 'decomposed', 'chunked'] as const) {
      const graph = new Graph('test', { ...defaultDialect, attention: kind });
      const q = graph.input('q', 'f32', ['B', 'L', width]);
      const [k, v] = ['k', 'v'].map((name) => graph.input(name, 'f32', ['B', 'S', width]));
      if (k === undefined || v === undefined) throw new Error('no inputs');
      graph.output('y', attention(graph, { q, k, v, heads }));
      const session = await createSession(graph, cpuBackend);
      const { y } = await session.run({
        q: feed('q', [batch, tokens, width]),
        k: feed('k', [batch, source, width]),
        v: feed('v', [batch, source, width]),
      });
      await session.release();
      results.push(y ?? new Float32Array());
    }
    const [fused = new Float32Array(), ...others] = results;
    expect(fused).toHaveLength(batch * tokens * width);
    for (const other of others) {
      expect(other).toHaveLength(fused.length);
      const error = fused.reduce((most, value, i) => Math.max(most, Math.abs(value - (other[i] ?? 9))), 0);
      expect(error).toBeLessThan(1e-6);
    }
  });

  it('upsamples to an odd size as torch does: source = floor(target * in / out)', async () => {
    const graph = new Graph('test', fused);
    const x = graph.input('x', 'f32', ['B', 1, 'h', 'w']);
    const target = graph.input('target', 'f32', ['B', 1, 'H', 'W']);
    graph.output('y', upsampleTo(graph, x, target));
    const session = await createSession(graph, cpuBackend);
    const { y } = await session.run({
      x: { data: Float32Array.of(1, 2, 3, 4, 5, 6), shape: [1, 1, 2, 3] },
      target: { data: new Float32Array(15), shape: [1, 1, 3, 5] },
    });
    await session.release();
    expect([...(y ?? [])]).toEqual([1, 1, 2, 2, 3, 1, 1, 2, 2, 3, 4, 4, 5, 5, 6]);
  });
});

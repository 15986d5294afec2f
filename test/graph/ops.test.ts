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

  it('spells attention two ways with the same result', async () => {
    const results = await Promise.all(
      (['fused', 'decomposed'] as const).map(async (kind) => {
        const graph = new Graph('test', { ...defaultDialect, attention: kind });
        const q = graph.input('q', 'f32', ['B', 'L', 24]);
        const [k, v] = ['k', 'v'].map((name) => graph.input(name, 'f32', ['B', 'S', 24]));
        if (k === undefined || v === undefined) throw new Error('no inputs');
        graph.output('y', attention(graph, { q, k, v, heads: 3 }));
        const session = await createSession(graph, cpuBackend);
        const { y } = await session.run({
          q: feed('q', [2, 5, 24]),
          k: feed('k', [2, 7, 24]),
          v: feed('v', [2, 7, 24]),
        });
        await session.release();
        return y ?? new Float32Array();
      }),
    );
    const [a, b] = results;
    expect(a).toHaveLength(2 * 5 * 24);
    expect(Math.max(...(a ?? []).map((value, i) => Math.abs(value - (b?.[i] ?? 9))))).toBeLessThan(1e-6);
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

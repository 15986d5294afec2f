import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { defaultDialect } from '../../src/graph/dialect.js';
import { Graph } from '../../src/graph/graph.js';
import { graphMemory } from '../../src/graph/graph-memory.js';
import { add, concat, scale, transpose } from '../../src/graph/ops.js';
import { sizeOf } from '../../src/graph/shape.js';

const MB = 250_000; // elements

describe('graphMemory()', () => {
  it('counts what is alive at once: feeds, results, and an op in place', () => {
    const graph = new Graph('test', defaultDialect);
    const x = graph.input('x', 'f32', ['N', MB]);
    const turned = transpose(graph, x, [1, 0], [MB, 'N']); // x, turned
    const twice = scale(graph, turned, 2); // over turned, which nothing else reads
    graph.output('y', concat(graph, [twice, twice], 0)); // x, which is the caller's, twice, and the result of double the size
    expect(graphMemory(graph, { N: 1 })).toEqual({ weightBytes: 4, peakBytes: 4e6, feedBytes: 1e6, endBytes: 3e6 });
    expect(graphMemory(graph, { N: 5 }).peakBytes).toBe(20e6);
  });

  it('keeps a value to its last reader in the order of the run', () => {
    const graph = new Graph('test', defaultDialect);
    const x = graph.input('x', 'f32', [MB]);
    const kept = graph.node('Softmax', [x], [MB]);
    const other = graph.node('Transpose', [x], [MB], { attributes: { perm: [0] } });
    graph.output('y', add(graph, other, kept));
    // x, kept and other; the sum is in place.
    expect(graphMemory(graph, {}).peakBytes).toBe(3e6);
  });

  it('keeps what the body of a Scan reads until the Scan has run', () => {
    const graph = new Graph('test', defaultDialect);
    const x = graph.input('x', 'f32', [2, MB]);
    const kept = graph.node('Softmax', [x], [2, MB]);
    const other = graph.node('Transpose', [x], [2, MB], { attributes: { perm: [0, 1] } });
    graph.output(
      'y',
      graph.scan(other, (body, row) => add(body, row, kept)),
    );
    // x, kept, other, and the result: one [2, MB] for each of two rows.
    expect(graphMemory(graph, {}).peakBytes).toBe(10e6);
  });

  it('counts a weight in the type that the graph casts it to', () => {
    const range = { file: '/nowhere', offset: 0, length: 2e6 };
    for (const [compute, bytes] of [
      ['f32', 4e6],
      ['f16', 2e6],
    ] as const) {
      const graph = new Graph('test', { ...defaultDialect, compute });
      const weight = graph.narrow(graph.external('weight', 'f16', [1e6], range));
      graph.output('y', add(graph, graph.floatInput('x', [1e6]), weight));
      expect(graphMemory(graph, {}).weightBytes, compute).toBe(bytes);
    }
  });
});

describe('graphMemory() of blocked convolutions', () => {
  const memoryOf = (shape: readonly number[], outputs: number) => {
    const graph = new Graph('test', { ...defaultDialect, convolutions: 'blocked' });
    const [inputs = 0, ...rest] = shape;
    const x = graph.node('Softmax', [graph.input('x', 'f32', [1, inputs, ...rest])], [1, inputs, ...rest]);
    const weight = graph.constant(new Float32Array(outputs * inputs), [outputs, inputs, ...rest.map(() => 1)]);
    const y = graph.node('Conv', [x, weight], [1, outputs, ...rest]);
    graph.output('y', graph.node('Softmax', [y], y.shape));
    return graphMemory(graph, {}).peakBytes;
  };

  it('counts the copies of what goes in and of what comes out, with slack of the arena', () => {
    // x, which is the caller's, and the result with its copy; or the input with its copy.
    expect(memoryOf([10, 250, 100], 30)).toBe(7.7e6);
    expect(memoryOf([30, 250, 100], 10)).toBe(9.9e6);
  });

  it('counts none where the images of a video are convolved together', () => {
    expect(memoryOf([10, 5, 50, 100], 30)).toBe(1e6 + 1e6 + 3e6);
  });
});

describe('sizeOf()', () => {
  it.each([
    [7, 7],
    ['H', 5],
    ['2H', 10],
    ['4*H*W', 60],
    ['ceil(H/2)', 3],
    ['2ceil(ceil(H/2)/2)', 4],
    ['ceil(3H/2)', 8],
    ['(2+2W)', 8],
    ['H*(1+W)', 20],
    ['2*chunks(H*W)*chunk(H*W)', 30],
  ])('of %s', (dim, size) => {
    expect(sizeOf(dim, { H: 5, W: 3 })).toBe(size);
  });

  it('names the dimension that has none', () => {
    expect(() => sizeOf('2T', { H: 5 })).toThrow('the dimension T has no size');
  });
});

it.each(['sdxl', 'wan'])(
  'the computed peak of the VAE of %s is near what a run takes',
  async (family) => {
    // In a process of its own, whose memory nothing else moves.
    const program = fileURLToPath(new URL('../../dist/test/support/measure-peak.js', import.meta.url));
    // Every value a mapping of its own, which is gone when it is freed. https://man7.org/linux/man-pages/man3/mallopt.3.html
    const env = { ...process.env, MALLOC_MMAP_THRESHOLD_: '65536' };
    const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', program, family], { env });
    const { computed, measured } = JSON.parse(stdout) as { computed: number; measured: number };
    expect(measured / computed).toBeGreaterThan(0.85);
    expect(measured / computed).toBeLessThan(1.15);
  },
  120_000,
);

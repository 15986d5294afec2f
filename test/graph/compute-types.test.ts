import { describe, expect, it } from 'vitest';
import { defaultDialect } from '../../src/graph/dialect.js';
import { Graph, type Value } from '../../src/graph/graph.js';
import { onnxTypes } from '../../src/graph/onnx-proto.js';
import {
  add,
  attention,
  chunk2,
  concat,
  conv2d,
  gather,
  groupNorm,
  layerNorm,
  linear,
  scale,
} from '../../src/graph/ops.js';
import { type Scope, Weights } from '../../src/graph/weights.js';
import { computedTypes, typeProblems } from '../support/type-problems.js';

const half = { ...defaultDialect, compute: 'f16' } as const;

function scopeOf(graph: Graph): Scope {
  return new Weights(graph, { path: 'nothing', tensors: new Map(), metadata: {} }).root;
}

describe('the type of a result', () => {
  const image = (graph: Graph) => graph.input('image', 'f16', ['B', 8, 'H', 'W']);
  const rows = (graph: Graph) => graph.input('rows', 'f16', ['B', 'L', 8]);
  const cases: readonly [string, (graph: Graph) => Value][] = [
    ['add', (g) => add(g, rows(g), g.constant(Float32Array.of(1), [1]))],
    ['scale', (g) => scale(g, rows(g), 0.5)],
    ['linear', (g) => linear(scopeOf(g), rows(g), 4)],
    ['conv2d', (g) => conv2d(scopeOf(g), image(g), 4)],
    ['groupNorm', (g) => groupNorm(scopeOf(g), image(g), { groups: 2, eps: 1e-5 })],
    ['layerNorm', (g) => layerNorm(scopeOf(g), rows(g), { eps: 1e-5 })],
    ['attention', (g) => attention(g, { q: rows(g), k: rows(g), v: rows(g), heads: 2 })],
    ['chunk2', (g) => chunk2(g, rows(g))[1]],
    ['concat', (g) => concat(g, [rows(g), rows(g)], 2)],
    ['gather', (g) => gather(g, scopeOf(g).tensor('table', [9, 8]), g.input('ids', 'i32', ['T']))],
  ];
  it.each(cases)('of %s is f16 over f16 inputs', (_, build) => {
    for (const kind of ['fused', 'chunked', 'decomposed'] as const) {
      expect(build(new Graph('test', { attention: kind, compute: 'f16' })).type).toBe('f16');
    }
  });

  it('is the type of the first input where floats and integers meet, and named by ops that change it', () => {
    const graph = new Graph('test', half);
    const ids = graph.input('ids', 'i64', ['B', 2]);
    expect(graph.reshape(ids, ['B', 1, 2]).type).toBe('i64');
    expect(graph.dimension('B').type).toBe('i64');
    expect(graph.shapeValue(['B', 4]).type).toBe('i64');
    expect(graph.cast(ids, 'f16').type).toBe('f16');
  });
});

describe('the borders of a graph', () => {
  it('are float32, with casts where it computes in f16', () => {
    const graph = new Graph('test', half);
    const x = graph.floatInput('x', ['B', 4]);
    expect(x.type).toBe('f16');
    graph.output('y', add(graph, x, x));
    expect(typeProblems(graph)).toEqual([]);
    expect(computedTypes(graph)).toEqual(new Set([onnxTypes.f16]));
  });

  it('have no casts where it computes in float32', () => {
    const graph = new Graph('test', defaultDialect);
    const x = graph.floatInput('x', ['B', 4]);
    expect(x).toEqual({ name: 'x', type: 'f32', shape: ['B', 4] });
  });
});

it('typeProblems reports a node that mixes types', () => {
  const graph = new Graph('test', half);
  const [a, b] = [graph.input('a', 'f32', [2]), graph.input('b', 'f16', [2])];
  graph.output('sum', add(graph, a, b));
  expect(typeProblems(graph)).toEqual(['Add.0 mixes the types 1 and 10']);
});

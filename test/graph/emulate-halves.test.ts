import { expect, it } from 'vitest';
import { Graph } from '../../src/graph/graph.js';
import { add } from '../../src/graph/ops.js';
import { encodedGraph } from '../support/encoded-graph.js';

// Without them a session of a whole network takes seconds to open.
it('a graph of emulated halves has the shapes of all values between its nodes', () => {
  const graph = new Graph('test', { attention: 'fused', compute: 'bf16', emulated: true });
  const x = graph.reshape(graph.floatInput('x', ['B', 'L', 6]), ['B*L', 2, 3]);
  const sum = add(graph, x, x);
  graph.output('y', graph.reshape(sum, ['B', 'L', 6]));
  const { nodes, between, outputs } = encodedGraph(graph);
  const made = nodes.flatMap((node) => node.outputs).filter((name) => !outputs.has(name));
  expect([...between.keys()].sort()).toEqual(made.sort());
  expect(between.get(sum.name)).toEqual(['B*L', 2, 3]);
});

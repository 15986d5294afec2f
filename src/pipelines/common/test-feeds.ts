import type { Graph } from '../../graph/graph.js';
import { TorchCpuGenerator } from '../../random/torch-cpu.js';
import type { Feed } from '../../runtime/session.js';

/** Every run-time dimension of a test run but the batch, which is 1: enough pixels and tokens for every kind of op. */
const SIZE = 8;

/** Feeds for one run of any network: noise of deviation 1 for floats, zeros for indices. */
export function testFeeds(graph: Graph): Readonly<Record<string, Feed>> {
  const generator = new TorchCpuGenerator(0);
  return Object.fromEntries(
    graph.inputs.map(({ name, type, shape }) => {
      const sizes = shape.map(sizeOf);
      const length = sizes.reduce((product, size) => product * size, 1);
      const data = type === 'f32' ? generator.randn(length) : new Int32Array(length);
      return [name, { data, shape: sizes }] as const;
    }),
  );
}

// A dimension is a number, a name, a number before a name, or a product of these (graph/shape.ts).
function sizeOf(dim: number | string): number {
  if (typeof dim === 'number') return dim;
  return dim
    .split('*')
    .map((factor) => {
      const [, times, name] = /^(\d*)(.*)$/.exec(factor) ?? [];
      const size = name === '' ? 1 : name === 'B' ? 1 : SIZE;
      return Number(times || 1) * size;
    })
    .reduce((product, size) => product * size, 1);
}

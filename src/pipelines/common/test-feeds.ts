import type { Graph } from '../../graph/graph.js';
import { sizeOf } from '../../graph/shape.js';
import { TorchCpuGenerator } from '../../random/torch-cpu.js';
import type { Feed } from '../../runtime/session.js';
import { bytesFromFloats } from '../../weights/half-floats.js';

/** Run-time dimensions of a test run: enough pixels and tokens for every kind of op. */
const TEST_SIZES = { B: 1, N: 1, T: 8, S: 8, I: 8, F: 8, H: 8, W: 8, h: 8, w: 8 };

/** Feeds for one run of any network: noise of deviation 1 for floats, zeros for indices. */
export function testFeeds(graph: Graph): Readonly<Record<string, Feed>> {
  const generator = new TorchCpuGenerator(0);
  return Object.fromEntries(
    graph.inputs.map(({ name, type, shape }) => {
      const sizes = shape.map((dim) => sizeOf(dim, TEST_SIZES));
      const length = sizes.reduce((product, size) => product * size, 1);
      const noise = type === 'f32' || type === 'f16' ? generator.randn(length) : undefined;
      const data = noise === undefined ? new Int32Array(length) : type === 'f16' ? halves(noise) : noise;
      return [name, { data, shape: sizes }] as const;
    }),
  );
}

function halves(values: Float32Array): Uint16Array {
  return new Uint16Array(bytesFromFloats('F16', values).buffer);
}

import { sizeOf } from '../../graph/shape.js';
import { TorchCpuGenerator } from '../../random/torch-cpu.js';
import type { Feed } from '../../runtime/session.js';
import { elementCount } from '../../std/element-count.js';
import { bytesFromFloats } from '../../weights/half-floats.js';
import type { Network } from './build-networks.js';

/** Run-time dimensions of a test run: enough pixels and tokens for every kind of op. */
const TEST_SIZES = { B: 1, T: 8, S: 8, I: 8, F: 8, H: 8, W: 8, h: 8, w: 8 };

const TEST_RUN = { width: 64, height: 64, frames: 1, rows: 1 } as const;

/** Feeds for one run of any network: noise of deviation 1 for floats, zeros for indices. */
export function testFeeds({ graph, sizes: sizesOf }: Pick<Network, 'graph' | 'sizes'>): Readonly<Record<string, Feed>> {
  // A network may have dimensions that it alone knows.
  const known = { ...sizesOf(TEST_RUN), ...TEST_SIZES };
  const generator = new TorchCpuGenerator(0);
  return Object.fromEntries(
    graph.inputs.map(({ name, type, shape }) => {
      const sizes = shape.map((dim) => sizeOf(dim, known));
      const length = elementCount(sizes);
      const noise = type === 'f32' || type === 'f16' ? generator.randn(length) : undefined;
      const data = noise === undefined ? new Int32Array(length) : type === 'f16' ? halves(noise) : noise;
      return [name, { data, shape: sizes }] as const;
    }),
  );
}

function halves(values: Float32Array): Uint16Array {
  return new Uint16Array(bytesFromFloats('F16', values).buffer);
}

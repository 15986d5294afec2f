import type { OnnxType } from '../../graph/onnx-proto.js';
import { sizeOf } from '../../graph/shape.js';
import { TorchCpuGenerator } from '../../random/torch-cpu.js';
import type { Feed, TensorData } from '../../runtime/session.js';
import { elementCount } from '../../std/element-count.js';
import { bytesFromFloats } from '../../weights/half-floats.js';
import type { Network } from './build-networks.js';

/** A run with enough pixels for every kind of op. */
const TEST_RUN = { width: 64, height: 64, frames: 1, rows: 1 } as const;
/** Run-time dimensions that it does not need as large, or as small, as a network has them then. */
const TEST_SIZES = { B: 1, T: 8, S: 8, I: 8, F: 8, h: 8, w: 8 };

/** Feeds for one run of any network: noise of deviation 1 for floats, zeros for indices and counts. */
export function testFeeds({ graph, sizes: sizesOf }: Pick<Network, 'graph' | 'sizes'>): Readonly<Record<string, Feed>> {
  const known = { ...sizesOf(TEST_RUN), ...TEST_SIZES };
  const generator = new TorchCpuGenerator(0);
  return Object.fromEntries(
    graph.inputs.map(({ name, type, shape }) => {
      const sizes = shape.map((dim) => sizeOf(dim, known));
      const length = elementCount(sizes);
      return [name, { data: testData(type, length, generator), shape: sizes }] as const;
    }),
  );
}

function testData(type: OnnxType, length: number, generator: TorchCpuGenerator): TensorData {
  if (type === 'f32') return generator.randn(length);
  if (type === 'f16') return halves(generator.randn(length));
  return type === 'i64' ? new BigInt64Array(length) : new Int32Array(length);
}

function halves(values: Float32Array): Uint16Array {
  return new Uint16Array(bytesFromFloats('F16', values).buffer);
}

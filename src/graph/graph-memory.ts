/** What a graph takes on a device, from its shapes: nothing is run. */
import type { Graph, GraphAnatomy, Value } from './graph.js';
import type { NodeProto, OnnxType } from './onnx-proto.js';
import { sizeOf } from './shape.js';

const BYTES: Readonly<Record<OnnxType, number>> = {
  ...{ f32: 4, i32: 4, i64: 8, f16: 2, bf16: 2 },
  ...{ u8: 1, bool: 1, f8e4m3: 1, f8e5m2: 1 },
};

/** Ops that may write over an input of the same size that nothing else reads. */
const IN_PLACE = new Set(['Add', 'Sub', 'Mul', 'Div', 'Max', 'Min', 'Sigmoid', 'Gelu', 'QuickGelu', 'Clip', 'Softmax']);
/** Ops whose result is their input under another shape. */
const ALIASES = new Set(['Reshape', 'Identity']);

export interface GraphMemory {
  /** Bytes of the weights as the device holds them: cast, where the graph casts them. */
  readonly weightBytes: number;
  /** Largest sum of the bytes of all values that are alive at once in a run, feeds and results included. */
  readonly peakBytes: number;
}

/**
 * Computes it by liveness: a value is alive from the node that makes it to the last one that reads it. The runtime folds what
 * follows from initializers alone while it loads. Its kernels' own workspaces, padding and slack of its arena are not counted.
 *
 * @param sizes of the run-time dimensions
 */
export function graphMemory(graph: Graph, sizes: Readonly<Record<string, number>>): GraphMemory {
  const { nodes, values, initializers, outputs } = graph.anatomy;
  const constants = foldedConstants(nodes, initializers);
  const bytesOf = (name: string): number => {
    const value = values.get(name);
    return value === undefined ? 0 : bytes(value, sizes);
  };

  // 1. weights: constants that a run reads
  const running = nodes.filter(({ outputs: [first = ''] }) => !constants.has(first));
  const read = new Set(running.flatMap((node) => node.inputs).filter((name) => constants.has(name)));
  const weightBytes = [...read].reduce((sum, name) => sum + bytesOf(name), 0);

  // 2. the last reader of each buffer; a name may stand for another one's buffer
  const bufferOf = new Map<string, string>();
  const buffer = (name: string): string => bufferOf.get(name) ?? name;
  const lastRead = new Map<string, number>();
  for (const [i, node] of running.entries()) {
    if (ALIASES.has(node.op)) bufferOf.set(node.outputs[0] ?? '', buffer(node.inputs[0] ?? ''));
    for (const name of node.inputs) lastRead.set(buffer(name), i);
  }
  for (const name of outputs) lastRead.set(buffer(name), running.length);

  // 3. the run
  const alive = new Map<string, number>(graph.inputs.map(({ name }) => [name, bytesOf(name)]));
  let now = [...alive.values()].reduce((sum, size) => sum + size, 0);
  let peakBytes = now;
  for (const [i, node] of running.entries()) {
    const dying = [...new Set(node.inputs.map(buffer))].filter((name) => alive.has(name) && lastRead.get(name) === i);
    if (!ALIASES.has(node.op)) {
      const made = node.outputs.map((name) => [name, bytesOf(name)] as const);
      const own = made.reduce((sum, [, size]) => sum + size, 0);
      const isInPlace = IN_PLACE.has(node.op) && dying.some((name) => alive.get(name) === own);
      now += own;
      peakBytes = Math.max(peakBytes, isInPlace ? now - own : now);
      for (const [name, size] of made) alive.set(name, size);
    }
    for (const name of dying) {
      now -= alive.get(name) ?? 0;
      alive.delete(name);
    }
    for (const name of node.outputs) {
      if (lastRead.has(buffer(name)) || !alive.has(name)) continue;
      now -= alive.get(name) ?? 0;
      alive.delete(name);
    }
  }
  return { weightBytes, peakBytes };
}

/** Names of values that follow from initializers alone. */
function foldedConstants(nodes: readonly NodeProto[], initializers: GraphAnatomy['initializers']): ReadonlySet<string> {
  const constants = new Set(['', ...initializers]);
  for (const node of nodes) {
    if (node.inputs.every((name) => constants.has(name))) for (const name of node.outputs) constants.add(name);
  }
  return constants;
}

function bytes({ type, shape }: Value, sizes: Readonly<Record<string, number>>): number {
  return shape.reduce((product: number, dim) => product * sizeOf(dim, sizes), BYTES[type]);
}

/** What a graph takes on a device, from its shapes: nothing is run. */
import type { Graph, GraphAnatomy } from './graph.js';
import type { Dim, NodeProto, OnnxType } from './onnx-proto.js';
import { sizeOf } from './shape.js';

const BYTES: Readonly<Record<OnnxType, number>> = {
  ...{ f32: 4, i32: 4, i64: 8, f16: 2, bf16: 2 },
  ...{ u8: 1, i8: 1, bool: 1, f8e4m3: 1, f8e5m2: 1 },
};

/** Ops that may write over an input of the same size that nothing else reads. */
const IN_PLACE = new Set(['Add', 'Sub', 'Mul', 'Div', 'Max', 'Min', 'Sigmoid', 'Gelu', 'QuickGelu', 'Clip', 'Softmax']);
/** [B, C, H, W]: a video's convolutions are not blocked. */
const IMAGE_RANK = 4;
/** What the CPU's arena takes for such copies: pieces of it stay free between them. 1.05 to 1.21 were measured. */
const ARENA_SLACK = 1.1;
/** Ops whose result is their input under another shape. */
const ALIASES = new Set(['Reshape', 'Identity']);

export interface GraphMemory {
  /** Bytes of the weights as the device holds them: cast, where the graph casts them. */
  readonly weightBytes: number;
  /** Largest sum of the bytes of all values that are alive at once in a run, results included, and of the feeds, which are the caller's. */
  readonly peakBytes: number;
  /** The feeds alone. */
  readonly feedBytes: number;
  /** Feeds and results, when the run ends. */
  readonly endBytes: number;
}

/**
 * Computes it by liveness: a value is alive from the node that makes it to the last one that reads it, in the order of the run. The
 * runtime folds what follows from initializers alone while it loads. Where the dialect's convolutions are blocked, their copies are
 * counted, with slack of the arena. Kernels' own workspaces, padding and other slack of arenas are not.
 *
 * @param sizes of the run-time dimensions
 */
export function graphMemory(graph: Graph, sizes: Readonly<Record<string, number>>): GraphMemory {
  return memoryOf(graph)(sizes);
}

/** The same for several sizes: what does not depend on them is found once. */
export function memoryOf(graph: Graph): (sizes: Readonly<Record<string, number>>) => GraphMemory {
  const { nodes, values, initializers, outputs } = graph.anatomy;
  const isBlocked = graph.dialect.convolutions === 'blocked';
  const constants = foldedConstants(nodes, initializers);
  const isBlockedConv = ({ op, inputs: [x = ''] }: NodeProto) =>
    isBlocked && op === 'Conv' && values.get(x)?.shape.length === IMAGE_RANK;
  // Constants that a run reads are weights.
  const running = inRunOrder(nodes.filter(({ outputs: [first = ''] }) => !constants.has(first)));
  const read = new Set(running.flatMap((node) => node.inputs).filter((name) => constants.has(name)));

  // The last reader of each buffer; a name may stand for another one's buffer.
  const bufferOf = new Map<string, string>();
  const buffer = (name: string): string => bufferOf.get(name) ?? name;
  const lastRead = new Map<string, number>();
  for (const [i, node] of running.entries()) {
    if (ALIASES.has(node.op)) bufferOf.set(node.outputs[0] ?? '', buffer(node.inputs[0] ?? ''));
    for (const name of node.inputs) lastRead.set(buffer(name), i);
  }
  for (const name of outputs) lastRead.set(buffer(name), running.length);

  return (sizes) => {
    const bytesOf = bytesOfValues(values, sizes);
    const weightBytes = [...read].reduce((sum, name) => sum + bytesOf(name), 0);
    const feedBytes = graph.inputs.reduce((sum, { name }) => sum + bytesOf(name), 0);
    let now = feedBytes;
    const alive = new Map<string, number>();
    let peakBytes = now;
    for (const [i, node] of running.entries()) {
      const dying = [...new Set(node.inputs.map(buffer))].filter((name) => alive.has(name) && lastRead.get(name) === i);
      if (!ALIASES.has(node.op)) {
        const made = node.outputs.map((name) => [name, bytesOf(name)] as const);
        const own = made.reduce((sum, [, size]) => sum + size, 0);
        const isInPlace = IN_PLACE.has(node.op) && dying.some((name) => alive.get(name) === own);
        now += own;
        peakBytes = Math.max(peakBytes, isInPlace ? now - own : now);
        if (isBlockedConv(node)) {
          const [x = ''] = node.inputs;
          const input = bytesOf(x);
          const others = now - own - (dying.includes(buffer(x)) ? input : 0);
          // The input and its copy, which the input does not outlive; the copy and the result; the result and its own copy.
          const copying = Math.max(now - own + input, others + input + own, others + 2 * own);
          peakBytes = Math.max(peakBytes, Math.round(ARENA_SLACK * copying));
        }
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
    return { weightBytes, peakBytes, feedBytes, endBytes: now };
  };
}

/**
 * The order in which the runtime runs nodes: backwards from those whose results no node reads, the last one first, and at each node
 * from the input that was made last.
 *
 * Blocked convolutions change it: some nodes that hang on no image, such as the keys of a text, then run later than here.
 *
 * https://github.com/microsoft/onnxruntime/blob/v1.22.0/onnxruntime/core/graph/graph_viewer.cc
 */
export function inRunOrder(nodes: readonly NodeProto[]): readonly NodeProto[] {
  const makers = new Map(nodes.flatMap((node, i) => node.outputs.map((name) => [name, i] as const)));
  const read = new Set(nodes.flatMap((node) => node.inputs));
  const order: NodeProto[] = [];
  const visited = new Set<number>();
  const stack = nodes.flatMap((node, i) => (node.outputs.some((name) => read.has(name)) ? [] : [{ i, isLeft: false }]));
  for (let entry = stack.pop(); entry !== undefined; entry = stack.pop()) {
    const { i, isLeft } = entry;
    const node = nodes[i] as NodeProto;
    if (isLeft) order.push(node);
    if (isLeft || visited.has(i)) continue;
    visited.add(i);
    stack.push({ i, isLeft: true });
    const from = new Set(node.inputs.flatMap((name) => makers.get(name) ?? []));
    for (const maker of [...from].sort((a, b) => a - b))
      if (!visited.has(maker)) stack.push({ i: maker, isLeft: false });
  }
  return order;
}

/** Names of values that follow from initializers alone. */
function foldedConstants(nodes: readonly NodeProto[], initializers: GraphAnatomy['initializers']): ReadonlySet<string> {
  const constants = new Set(['', ...initializers]);
  for (const node of nodes) {
    if (node.inputs.every((name) => constants.has(name))) for (const name of node.outputs) constants.add(name);
  }
  return constants;
}

/** Bytes of a value by its name; 0 for a name of none. */
function bytesOfValues(
  values: GraphAnatomy['values'],
  sizes: Readonly<Record<string, number>>,
): (name: string) => number {
  // A graph has few different dimensions, and reading one takes long.
  const known = new Map<Dim, number>();
  const lengthOf = (dim: Dim): number => {
    const length = known.get(dim) ?? sizeOf(dim, sizes);
    known.set(dim, length);
    return length;
  };
  return (name) => {
    const value = values.get(name);
    if (value === undefined) return 0;
    return value.shape.reduce((product: number, dim) => product * lengthOf(dim), BYTES[value.type]);
  };
}

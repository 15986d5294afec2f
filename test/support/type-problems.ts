import type { Graph } from '../../src/graph/graph.js';
import { onnxTypes } from '../../src/graph/onnx-proto.js';
import { type EncodedNode, encodedGraph } from './encoded-graph.js';

const FLOATS: readonly number[] = [onnxTypes.f32, onnxTypes.f16, onnxTypes.bf16];
/** Resize takes its scales in float32 whatever it resizes. */
const RESIZE_SCALES = 2;

/**
 * Infers the type of every value from the encoded bytes by ONNX's rules and lists the nodes that a runtime would refuse: those
 * whose float inputs differ in type, and outputs of another type than declared.
 */
export function typeProblems(graph: Graph): readonly string[] {
  const { nodes, initializers, inputs, outputs } = encodedGraph(graph);
  const types = new Map([...initializers, ...inputs]);
  const problems: string[] = [];
  for (const node of nodes) {
    const known = node.inputs.map((name) => types.get(name));
    for (const [i, name] of node.inputs.entries()) {
      if (name !== '' && known[i] === undefined) problems.push(`${node.name}: ${name} has no type`);
    }
    const own = known.filter((_, i) => !(node.op === 'Resize' && i === RESIZE_SCALES));
    const floats = new Set(own.filter((type) => type !== undefined && FLOATS.includes(type)));
    if (floats.size > 1) problems.push(`${node.name} mixes the types ${[...floats].join(' and ')}`);
    for (const output of node.outputs) types.set(output, resultType(node, known[0] ?? 0));
  }
  for (const [name, declared] of outputs) {
    if (types.get(name) !== declared) problems.push(`${name} is ${types.get(name)}, declared ${declared}`);
  }
  return problems;
}

function resultType({ op, to }: EncodedNode, first: number): number {
  if (op === 'Cast') return to;
  return op === 'Shape' ? onnxTypes.i64 : first;
}

/** Float types that nodes other than Casts compute in, with the ops of each and their number. */
export function computedOps(graph: Graph): ReadonlyMap<number, ReadonlyMap<string, number>> {
  const { nodes, initializers, inputs } = encodedGraph(graph);
  const types = new Map([...initializers, ...inputs]);
  const computed = new Map<number, Map<string, number>>();
  for (const node of nodes) {
    const type = resultType(node, types.get(node.inputs[0] ?? '') ?? 0);
    for (const output of node.outputs) types.set(output, type);
    // Rows of a table are picked in the type that the file stores.
    if (node.op === 'Cast' || node.op === 'Identity' || !FLOATS.includes(type)) continue;
    const ops = computed.get(type) ?? new Map<string, number>();
    computed.set(type, ops.set(node.op, (ops.get(node.op) ?? 0) + 1));
  }
  return computed;
}

/** Float types that nodes other than Casts compute in. */
export function computedTypes(graph: Graph): ReadonlySet<number> {
  return new Set(computedOps(graph).keys());
}

import { type NodeProto, type OnnxType, onnxTypes, type ValueProto } from './onnx-proto.js';

const HALVES: readonly (OnnxType | undefined)[] = ['f16', 'bf16'];

/**
 * Rewrites nodes so that every op over halves computes in float32 and its result alone is rounded. The runtime keeps such pairs of
 * casts at every optimisation level, so a value beyond the half type's range becomes infinite here as it does on a device.
 * @param values all of them, by name
 * @param prefix of the names of new values: different in the body of a node and around it
 * @returns the nodes, and the values that they make. The runtime infers no shape behind a Reshape to run-time dimensions. It keeps
 *   the buffers of such values in one list, which it searches for every value: with all these casts, loading would take seconds
 */
export function emulateHalves(
  nodes: readonly NodeProto[],
  values: ReadonlyMap<string, ValueProto>,
  prefix: string,
): { readonly nodes: readonly NodeProto[]; readonly values: readonly ValueProto[] } {
  const rewritten: NodeProto[] = [];
  const made: ValueProto[] = [];
  const widened = new Set<string>();
  const isHalf = (name: string) => HALVES.includes(values.get(name)?.type);
  const wide = (name: string) => `${prefix}${name}:f32`;
  const cast = (from: string, to: string, type: OnnxType) =>
    rewritten.push({
      op: 'Cast',
      domain: '',
      name: `Cast ${to}`,
      inputs: [from],
      outputs: [to],
      attributes: { to: onnxTypes[type] },
    });
  const shapeOf = (name: string) => values.get(name)?.shape ?? [];
  for (const node of nodes) {
    made.push(...node.outputs.flatMap((name) => values.get(name) ?? []));
    // A body is rewritten by itself.
    if (node.op === 'Cast' || node.op === 'Scan' || ![...node.inputs, ...node.outputs].some(isHalf)) {
      rewritten.push(node);
      continue;
    }
    for (const name of node.inputs) {
      if (!isHalf(name) || widened.has(name)) continue;
      widened.add(name);
      made.push({ name: wide(name), type: 'f32', shape: shapeOf(name) });
      cast(name, wide(name), 'f32');
    }
    const exact = (name: string) => `${name}:exact`;
    rewritten.push({
      ...node,
      inputs: node.inputs.map((name) => (isHalf(name) ? wide(name) : name)),
      outputs: node.outputs.map((name) => (isHalf(name) ? exact(name) : name)),
    });
    for (const name of node.outputs) {
      if (!isHalf(name)) continue;
      made.push({ name: exact(name), type: 'f32', shape: shapeOf(name) });
      cast(exact(name), name, values.get(name)?.type ?? 'f32');
    }
  }
  return { nodes: rewritten, values: made };
}

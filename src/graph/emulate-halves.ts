import type { Value } from './graph.js';
import { type NodeProto, type OnnxType, onnxTypes } from './onnx-proto.js';

const HALVES: readonly (OnnxType | undefined)[] = ['f16', 'bf16'];

/**
 * Rewrites nodes so that every op over halves computes in float32 and its result alone is rounded. The runtime keeps such pairs of
 * casts at every optimisation level, so a value beyond the half type's range becomes infinite here as it does on a device.
 * @param values all of them, by name
 * @param prefix of the names of new values: different in the body of a node and around it
 */
export function emulateHalves(
  nodes: readonly NodeProto[],
  values: ReadonlyMap<string, Value>,
  prefix: string,
): readonly NodeProto[] {
  const rewritten: NodeProto[] = [];
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
  for (const node of nodes) {
    // A body is rewritten by itself.
    if (node.op === 'Cast' || node.op === 'Scan' || ![...node.inputs, ...node.outputs].some(isHalf)) {
      rewritten.push(node);
      continue;
    }
    for (const name of node.inputs) {
      if (!isHalf(name) || widened.has(name)) continue;
      widened.add(name);
      cast(name, wide(name), 'f32');
    }
    const exact = (name: string) => `${name}:exact`;
    rewritten.push({
      ...node,
      inputs: node.inputs.map((name) => (isHalf(name) ? wide(name) : name)),
      outputs: node.outputs.map((name) => (isHalf(name) ? exact(name) : name)),
    });
    for (const name of node.outputs) if (isHalf(name)) cast(exact(name), name, values.get(name)?.type ?? 'f32');
  }
  return rewritten;
}

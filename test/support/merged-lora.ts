import { hashTensor } from '../../src/synthetic/hash-weights.js';
import type { StoredTensor, Tensors } from './tensor-file.js';

/** What a LoRA adds to one weight, up times down. */
export interface Factors {
  /** Of the weight, without `.weight`. */
  readonly module: string;
  readonly down: { readonly shape: readonly number[]; readonly values: Float32Array };
  readonly up: { readonly shape: readonly number[]; readonly values: Float32Array };
}

/** Factors of hash weights for some modules of a checkpoint, convolutions as LoCon has them. */
export function factorsFor(weights: Tensors, modules: readonly string[], rank: number): readonly Factors[] {
  return modules.map((module) => {
    const [outputs = 0, ...inputs] = weights.get(`${module}.weight`)?.shape ?? [];
    const [down, up] = [
      [rank, ...inputs],
      [outputs, rank, ...inputs.slice(1).map(() => 1)],
    ];
    return {
      module,
      down: { shape: down, values: hashTensor(`down.${module}`, down) },
      up: { shape: up, values: hashTensor(`up.${module}`, up) },
    };
  });
}

/** Adds scale * up * down to weights of F32, on the host in double precision: what a graph with the LoRA has to come to. */
export function mergeLora(weights: Tensors, factors: readonly Factors[], scale: number): void {
  for (const { module, down, up } of factors) {
    const stored = weights.get(`${module}.weight`);
    if (stored === undefined) throw new Error(`${module} is not there`);
    const [rank = 0] = down.shape;
    const columns = down.values.length / rank;
    const merged = new Float32Array(Uint8Array.from(stored.bytes).buffer).map((value, i) => {
      const [row, column] = [Math.floor(i / columns), i % columns];
      let sum = 0;
      for (let r = 0; r < rank; r += 1)
        sum += (up.values[row * rank + r] ?? 0) * (down.values[r * columns + column] ?? 0);
      return value + scale * sum;
    });
    weights.set(`${module}.weight`, f32(stored.shape, merged));
  }
}

export function f32(shape: readonly number[], values: Float32Array): StoredTensor {
  return { dtype: 'F32', shape, bytes: Buffer.from(values.buffer, values.byteOffset, values.byteLength) };
}

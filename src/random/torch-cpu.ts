import { Mt19937 } from './mt19937.js';

/** Block size of torch's vectorised path. */
const BLOCK = 16;

/**
 * torch's CPU generator: the numbers of `torch.randn(size, generator=torch.Generator('cpu').manual_seed(seed))`, to float32
 * rounding. Successive calls go on in the same stream.
 *
 * Sixteen numbers and more come from 24-bit uniforms in blocks of 16 (Box and Muller's transform, cosines first); fewer come
 * one by one from 53-bit uniforms.
 * https://github.com/pytorch/pytorch/blob/v2.9.0/aten/src/ATen/native/cpu/DistributionTemplates.h#L120
 */
export class TorchCpuGenerator {
  readonly #engine: Mt19937;
  /** The sine that belongs to the last cosine that was returned alone. */
  #spare: number | undefined;

  /** @param seed an integer; its low 32 bits are what torch's engine takes */
  constructor(seed: number | bigint) {
    this.#engine = new Mt19937(Number(BigInt.asUintN(32, BigInt(seed))));
  }

  /** Draws `size` normal numbers of mean 0 and variance 1. */
  randn(size: number): Float32Array {
    if (size < BLOCK) return Float32Array.from({ length: size }, () => this.#normal());
    const values = new Float32Array(size);
    this.#fillUniform(values);
    for (let i = 0; i + BLOCK <= size; i += BLOCK) boxMuller(values.subarray(i, i + BLOCK));
    if (size % BLOCK !== 0) {
      // A remainder is filled by drawing the last sixteen again.
      const tail = values.subarray(size - BLOCK);
      this.#fillUniform(tail);
      boxMuller(tail);
    }
    return values;
  }

  #fillUniform(values: Float32Array): void {
    for (let i = 0; i < values.length; i += 1) values[i] = (this.#engine.uint32() & 0xffffff) / 2 ** 24;
  }

  // https://github.com/pytorch/pytorch/blob/v2.9.0/aten/src/ATen/core/DistributionsHelper.h#L165
  #normal(): number {
    const spare = this.#spare;
    this.#spare = undefined;
    if (spare !== undefined) return spare;
    const theta = 2 * Math.PI * this.#uniform53();
    const radius = Math.sqrt(-2 * Math.log1p(-this.#uniform53()));
    this.#spare = radius * Math.sin(theta);
    return radius * Math.cos(theta);
  }

  #uniform53(): number {
    const high = this.#engine.uint32() & 0x1fffff;
    const low = this.#engine.uint32();
    return (high * 2 ** 32 + low) / 2 ** 53;
  }
}

// In place: eight uniforms and eight more -> eight cosines and eight sines, in float32 steps.
function boxMuller(block: Float32Array): void {
  for (let j = 0; j < BLOCK / 2; j += 1) {
    const radius = Math.fround(Math.sqrt(Math.fround(-2 * Math.fround(Math.log(1 - (block[j] ?? 0))))));
    const theta = Math.fround(Math.fround(2 * Math.PI) * (block[j + BLOCK / 2] ?? 0));
    block[j] = radius * Math.fround(Math.cos(theta));
    block[j + BLOCK / 2] = radius * Math.fround(Math.sin(theta));
  }
}

import { type EulerConfig, EulerDiscrete } from './euler-discrete.js';

/** Tangents that a step looks back at. */
const ORDER = 4;

/**
 * Linear multistep (Adams-Bashforth of order 4 over uneven levels): each step integrates the polynomial through the last tangents.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/schedulers/scheduling_lms_discrete.py#L93
 */
export class Lms extends EulerDiscrete {
  /** Tangents of the last steps, the newest first. */
  #tangents: readonly Float32Array[] = [];

  constructor(name: string, config: EulerConfig, steps: number) {
    super(name, { ...config, timestep_type: 'discrete', final_sigmas_type: 'zero' }, steps);
  }

  override step(modelOutput: Float32Array, sample: Float32Array, i: number): Float32Array {
    const tangent = this.derivative(modelOutput, sample, this.sigmas[i] ?? 0);
    const tangents = [tangent, ...this.#tangents].slice(0, ORDER);
    this.#tangents = tangents;
    const levels = tangents.map((_, k) => this.sigmas[i - k] ?? 0);
    const weights = levels.map((_, k) => integral(basis(levels, k), this.sigmas[i] ?? 0, this.sigmas[i + 1] ?? 0));
    const next = new Float32Array(sample.length);
    for (let j = 0; j < next.length; j += 1) {
      let change = 0;
      for (let k = 0; k < tangents.length; k += 1) change += (weights[k] ?? 0) * (tangents[k]?.[j] ?? 0);
      next[j] = (sample[j] ?? 0) + change;
    }
    return next;
  }
}

/** Coefficients, from the constant on, of the Lagrange polynomial that is 1 at node `k` and 0 at the others. */
function basis(nodes: readonly number[], k: number): readonly number[] {
  const own = nodes[k] ?? 0;
  let polynomial: readonly number[] = [1];
  for (const node of nodes.filter((_, j) => j !== k)) {
    // Times (x - node) / (own - node).
    const product = [0, ...polynomial].map((value, power) => value - node * (polynomial[power] ?? 0));
    polynomial = product.map((value) => value / (own - node));
  }
  return polynomial;
}

function integral(polynomial: readonly number[], from: number, to: number): number {
  const at = (x: number) => polynomial.reduce((sum, value, power) => sum + (value * x ** (power + 1)) / (power + 1), 0);
  return at(to) - at(from);
}

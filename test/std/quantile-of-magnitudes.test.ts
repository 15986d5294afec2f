import { describe, expect, it } from 'vitest';
import { quantileOfMagnitudes } from '../../src/std/quantile-of-magnitudes.js';
import { hashTensor } from '../../src/synthetic/hash-weights.js';

describe('quantileOfMagnitudes', () => {
  // torch.quantile(torch.tensor([-3., 1., 0., 2.]).abs(), share)
  it.each([
    [0, 0],
    [0.5, 1.5],
    [0.9, 2.7],
    [1, 3],
  ])('at %d is that of torch: %d', (share, expected) => {
    expect(quantileOfMagnitudes(Float32Array.of(-3, 1, 0, 2), share)).toBeCloseTo(expected, 6);
  });

  it('finds what sorting finds, where values are equal, too', () => {
    const values = hashTensor('values', [4000]).map((value, i) => (i % 3 === 0 ? 0.25 : value));
    const sorted = values.map(Math.abs).sort();
    for (const rank of [0, 1, 1777, 3998, 3999]) {
      expect(quantileOfMagnitudes(values, rank / 3999)).toBeCloseTo(sorted[rank] ?? Number.NaN, 6);
    }
  });
});

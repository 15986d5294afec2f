import { describe, expect, it } from 'vitest';
import { betaQuantile } from '../../src/schedulers/beta-quantile.js';

describe('betaQuantile', () => {
  // scipy 1.17.1: scipy.stats.beta.ppf(p, a, b)
  it.each([
    [0, 0.6, 0.6, 0.0],
    [1, 0.6, 0.6, 1.0],
    [1e-6, 0.6, 0.6, 1.8558824624053043e-10],
    [0.01, 0.6, 0.6, 0.0008612388215429059],
    [0.2, 0.6, 0.6, 0.12292175045833292],
    [0.5, 0.6, 0.6, 0.5000000000000001],
    [0.75, 0.6, 0.6, 0.824319621347305],
    [0.999, 0.6, 0.6, 0.9999814412614826],
    [0.3, 2, 5, 0.18180347131894917],
    [0.9, 0.5, 3, 0.38624888180536926],
    [0.4, 30, 12, 0.6998061061580487],
  ])('of %d with the shapes %d and %d is %d', (p, a, b, expected) => {
    expect(Math.abs(betaQuantile(p, a, b) - expected)).toBeLessThan(1e-12);
  });
});

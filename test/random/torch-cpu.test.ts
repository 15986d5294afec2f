import { describe, expect, it } from 'vitest';
import { Mt19937 } from '../../src/random/mt19937.js';
import { TorchCpuGenerator } from '../../src/random/torch-cpu.js';

describe('Mt19937', () => {
  it("gives the authors' numbers for the default seed 5489", () => {
    // C++ [rand.predef]: the 10000th number of mt19937 is 4123659995.
    const engine = new Mt19937(5489);
    let last = 0;
    for (let i = 0; i < 10_000; i += 1) last = engine.uint32();
    expect(last).toBe(4123659995);
  });
});

describe('TorchCpuGenerator', () => {
  // The values of torch 2.13 (CPU) are checked in test/conformance; these are the rules around them.
  it('takes the low 32 bits of a seed', () => {
    expect(new TorchCpuGenerator(2n ** 32n + 5n).randn(20)).toEqual(new TorchCpuGenerator(5).randn(20));
    expect(new TorchCpuGenerator(4294967301).randn(20)).toEqual(new TorchCpuGenerator(5).randn(20));
  });

  it('goes on in the same stream', () => {
    const generator = new TorchCpuGenerator(9);
    const [a, b] = [generator.randn(16), generator.randn(16)];
    expect([...a, ...b]).toEqual([...new TorchCpuGenerator(9).randn(32)]);
  });

  it('hands out the spare number of a pair with the next call', () => {
    const generator = new TorchCpuGenerator(9);
    expect([...generator.randn(1), ...generator.randn(2)]).toEqual([...new TorchCpuGenerator(9).randn(3)]);
  });

  it('has mean 0 and variance 1', () => {
    const values = new TorchCpuGenerator(1).randn(100_000);
    const mean = values.reduce((sum, x) => sum + x, 0) / values.length;
    const variance = values.reduce((sum, x) => sum + x * x, 0) / values.length;
    expect(Math.abs(mean)).toBeLessThan(0.01);
    expect(Math.abs(variance - 1)).toBeLessThan(0.02);
  });
});

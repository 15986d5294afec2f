import { describe, expect, it } from 'vitest';
import { fnv1a32, hashTensor, hashUnit } from '../../src/synthetic/hash-weights.js';
import { bytesFromFloats } from '../../src/weights/half-floats.js';

describe('hash weights', () => {
  it('match the numbers that the rule is published with', () => {
    const hash = fnv1a32('unet.conv_in.weight');
    expect(hash).toBe(4221856901);
    const published = [0.16320598, 0.62309563, -0.9519906, -0.01943266];
    for (const [i, value] of published.entries()) expect(hashUnit(hash, i)).toBeCloseTo(value, 7);
  });

  it('scale by what kind of tensor it is', () => {
    const range = (name: string, shape: number[]) =>
      hashTensor(name, shape).reduce((max, value) => Math.max(max, Math.abs(value)), 0);
    expect(range('norm.weight', [1000])).toBeGreaterThan(1.09);
    expect(range('norm.bias', [1000])).toBeLessThanOrEqual(0.05);
    expect(range('conv.weight', [10, 3, 10, 10])).toBeLessThanOrEqual(0.1);
  });

  it.each([
    [
      'F16',
      [1, -2, 65504, 1 / 3, 2 ** -14, 2 ** -24, 2 ** -26, 1 + 2 ** -11, 1 + 3 * 2 ** -11],
      [0x3c00, 0xc000, 0x7bff, 0x3555, 0x0400, 0x0001, 0x0000, 0x3c00, 0x3c02],
    ],
    ['BF16', [1, -2, 1 / 3, 1 + 2 ** -8, 1 + 3 * 2 ** -8], [0x3f80, 0xc000, 0x3eab, 0x3f80, 0x3f82]],
  ] as const)('round to nearest even in %s', (type, values, bits) => {
    const stored = bytesFromFloats(type, Float32Array.from(values));
    expect([...new Uint16Array(stored.buffer)]).toEqual([...bits]);
  });
});

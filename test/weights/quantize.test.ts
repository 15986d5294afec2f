import { readFile } from 'node:fs/promises';
import { describe, expect, it } from 'vitest';
import { hashTensor } from '../../src/synthetic/hash-weights.js';
import { quantize } from '../../src/weights/gguf/quantize.js';
import { bfloat16Bits, float16Bits, float16Value, floatsFrom } from '../../src/weights/half-floats.js';

interface Golden {
  readonly tensor: readonly [kind: 'hash', name: string, shape: readonly number[], note: string];
  readonly scale: number;
  readonly q8_0_base64: string;
}

const goldens = JSON.parse(
  await readFile(new URL('../fixtures/goldens/qwen-tiny/q8_0.json', import.meta.url), 'utf8'),
) as readonly Golden[];

function bitsOf(value: number): number {
  return new Uint32Array(Float32Array.of(value).buffer)[0] ?? 0;
}

describe('Q8_0', () => {
  it.each(goldens.map((golden) => [golden.tensor[1], golden] as const))('%s equals ggml byte for byte', (_, golden) => {
    const [, name, shape] = golden.tensor;
    const values = hashTensor(name, shape).map((value) => value * Math.fround(golden.scale));
    expect(Buffer.from(quantize('Q8_0', values)).toString('base64')).toBe(golden.q8_0_base64);
  });

  it('rounds halves away from zero', () => {
    const block = new Float32Array(32);
    block.set([127, 0.5, -0.5, 1.5, -1.5, 2.5, -2.5, -127]);
    const stored = new Int8Array(quantize('Q8_0', block).buffer, 2);
    expect([...stored.subarray(0, 9)]).toEqual([127, 1, -1, 2, -2, 3, -3, -127, 0]);
  });

  it('stores zero where the reciprocal of the scale overflows', () => {
    const block = new Float32Array(32).fill(2 ** -149);
    expect([...quantize('Q8_0', block)]).toEqual(new Array(34).fill(0));
  });

  it.each([
    [Number.NaN, 'holds NaN, which is no weight'],
    [Number.POSITIVE_INFINITY, 'holds Infinity, which is no weight'],
    [1e7, 'holds 10000000, which Q8_0 cannot; convert to another type'],
  ])('refuses %s', (value, message) => {
    expect(() => quantize('Q8_0', new Float32Array(32).fill(value))).toThrow(message);
  });

  it('refuses half a block', () => {
    expect(() => quantize('Q8_0', new Float32Array(33))).toThrow('has 33 elements, Q8_0 takes multiples of 32');
  });
});

describe('F16', () => {
  // IEEE 754 binary16, to nearest even.
  it.each([
    [1, 0x3c00],
    [-2, 0xc000],
    [-0, 0x8000],
    [65504, 0x7bff],
    [65519.996, 0x7bff],
    [65520, 0x7c00],
    [1 + 2 ** -11, 0x3c00],
    [1 + 3 * 2 ** -11, 0x3c02],
    [1 + 2 ** -11 + 2 ** -23, 0x3c01],
    [2 ** -14, 0x0400],
    [2 ** -14 - 2 ** -25, 0x0400],
    [2 ** -24, 0x0001],
    [2 ** -25, 0x0000],
    [2 ** -25 + 2 ** -48, 0x0001],
    [3 * 2 ** -25, 0x0002],
    [2 ** -149, 0],
    [Number.POSITIVE_INFINITY, 0x7c00],
    [Number.NEGATIVE_INFINITY, 0xfc00],
    [Number.NaN, 0x7e00],
  ])('%f is stored as %i', (value, bits) => {
    expect(float16Bits(bitsOf(value))).toBe(bits);
  });

  it('holds every binary16 unchanged, there and back', () => {
    const all = Uint16Array.from({ length: 65_536 }, (_, i) => i).filter((bits) => (bits & 0x7c00) !== 0x7c00);
    expect([...new Uint16Array(quantize('F16', floatsFrom('F16', new Uint8Array(all.buffer))).buffer)]).toEqual([
      ...all,
    ]);
    expect(float16Value(0x7c00)).toBe(Number.POSITIVE_INFINITY);
    expect(float16Value(0x7e00)).toBeNaN();
  });

  it('refuses what would become infinite', () => {
    expect(() => quantize('F16', Float32Array.of(1, -65520))).toThrow(
      'holds -65520, which F16 cannot; convert to another',
    );
  });
});

describe('BF16', () => {
  it.each([
    [1, 0x3f80],
    [-0, 0x8000],
    [1 + 2 ** -8, 0x3f80],
    [1 + 3 * 2 ** -8, 0x3f82],
    [1 + 2 ** -8 + 2 ** -23, 0x3f81],
    [3.4028234663852886e38, 0x7f80],
    [2 ** -149, 0],
    [Number.NEGATIVE_INFINITY, 0xff80],
  ])('%f is stored as %i', (value, bits) => {
    expect(bfloat16Bits(bitsOf(value))).toBe(bits);
  });

  it('keeps a NaN whose upper half alone would be infinity', () => {
    expect(bfloat16Bits(0x7f800001)).toBe(0x7fc0);
    expect(bfloat16Bits(0xffffffff)).toBe(0xffff);
  });

  it('is read exactly', () => {
    expect([...floatsFrom('BF16', Uint8Array.of(0x80, 0x3f, 0x80, 0xbf))]).toEqual([1, -1]);
  });
});

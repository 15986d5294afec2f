import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, it } from 'vitest';
import { blockOf, dequantize, quantizedTypes } from '../../src/weights/gguf/dequantize.js';
import { type GgufHeader, readGgufHeader } from '../../src/weights/gguf/gguf-header.js';
import { quantize } from '../../src/weights/gguf/quantize.js';
import { Expected } from '../conformance/golden-folder.js';

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/gguf/${name}`, import.meta.url));

describe('dequantize', () => {
  let header: GgufHeader;
  let bytes: Buffer;
  let expected: Expected;
  beforeAll(async () => {
    header = await readGgufHeader(fixture('types.gguf'));
    bytes = await readFile(fixture('types.gguf'));
    expected = await Expected.read(fixture('expected.safetensors'));
  });

  it.each(quantizedTypes)('%s equals gguf-py bit for bit, over random blocks', (type) => {
    const { offset = 0, length = 0 } = header.tensors.get(type) ?? {};
    const values = dequantize(type, bytes.subarray(offset, offset + length));
    const wanted = expected.floats(type);
    expect(wanted).toHaveLength(3 * 512);
    expect(Buffer.from(values.buffer)).toEqual(Buffer.from(Float32Array.from(wanted).buffer));
  });

  it.each(quantizedTypes)('%s gives zeros for a scale of zero, and nothing for nothing', (type) => {
    const { elements, bytes: size } = blockOf(type);
    expect(dequantize(type, new Uint8Array(2 * size)).map(Math.abs)).toEqual(new Float32Array(2 * elements));
    expect(dequantize(type, new Uint8Array())).toHaveLength(0);
    expect(() => dequantize(type, new Uint8Array(size + 1))).toThrow(
      `${size + 1} bytes are no whole number of ${type} blocks, which have ${size}`,
    );
  });

  it('gives back what Q8_0 was made of to half a step', () => {
    const values = Float32Array.from({ length: 64 }, (_, i) => Math.sin(i) / 10);
    const back = dequantize('Q8_0', quantize('Q8_0', values));
    const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
    for (const [i, value] of values.entries())
      expect(Math.abs((back[i] ?? 9) - value)).toBeLessThan(0.51 * (largest / 127));
  });
});

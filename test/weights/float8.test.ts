import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { defaultDialect } from '../../src/graph/dialect.js';
import { Graph } from '../../src/graph/graph.js';
import { storedRows, storedTensor } from '../../src/graph/stored-tensor.js';
import { createSession } from '../../src/runtime/session.js';
import { float8Table, float8Types, isFiniteFloat8 } from '../../src/weights/float8.js';
import { cpuBackend } from '../support/cpu-backend.js';
import { tempFolder } from '../support/temp-folder.js';

describe('8-bit floats', () => {
  // Micikevicius et al., arXiv:2209.05433.
  it.each([
    ['F8_E4M3', 0x7e, 448],
    ['F8_E4M3', 0x08, 2 ** -6],
    ['F8_E4M3', 0x07, 0.875 * 2 ** -6],
    ['F8_E4M3', 0x01, 2 ** -9],
    ['F8_E4M3', 0x7f, Number.NaN],
    ['F8_E4M3', 0x80, -0],
    ['F8_E5M2', 0x7b, 57344],
    ['F8_E5M2', 0x04, 2 ** -14],
    ['F8_E5M2', 0x03, 0.75 * 2 ** -14],
    ['F8_E5M2', 0x01, 2 ** -16],
    ['F8_E5M2', 0xfc, Number.NEGATIVE_INFINITY],
    ['F8_E5M2', 0x7d, Number.NaN],
  ] as const)('%s %i is %f', (type, byte, value) => {
    expect(float8Table(type)[byte]).toBe(value);
    expect(isFiniteFloat8(type, byte)).toBe(Number.isFinite(value));
  });

  it.each(float8Types)('%s: the runtime widens every byte as the table does, and rows of a table too', async (type) => {
    const file = join(await tempFolder(), 'bytes');
    await writeFile(
      file,
      Uint8Array.from({ length: 256 }, (_, i) => i),
    );
    const graph = new Graph('test', defaultDialect);
    const range = { file, offset: 0, length: 256 };
    const one = graph.input('one', 'f32', [1]);
    const ids = graph.input('ids', 'i32', [2]);
    const whole = graph.cast(storedTensor(graph, 'stored', type, [16, 16], range), 'f32');
    graph.output('whole', graph.node('Mul', [whole, one], [16, 16]));
    graph.output('rows', storedRows(graph, 'table', type, [16, 16], range, ids));
    const session = await createSession(graph, cpuBackend);
    const outputs = await session.run({
      one: { data: Float32Array.of(1), shape: [1] },
      ids: { data: Int32Array.of(15, 0), shape: [2] },
    });
    await session.release();
    const table = float8Table(type);
    expect(outputs.whole).toEqual(table);
    expect(outputs.rows).toEqual(Float32Array.of(...table.subarray(240), ...table.subarray(0, 16)));
  });
});

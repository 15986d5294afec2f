import { readdir } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { defaultDialect } from '../../src/graph/dialect.js';
import { Graph } from '../../src/graph/graph.js';
import { add } from '../../src/graph/ops.js';
import { Weights } from '../../src/graph/weights.js';
import type { LoraNames, LoraTarget } from '../../src/pipelines/lora/fit-lora.js';
import { readLora, readLoraUpdates } from '../../src/pipelines/lora/read-lora.js';
import { createSession } from '../../src/runtime/session.js';
import { floatsFrom } from '../../src/weights/half-floats.js';
import { readSafetensors } from '../../src/weights/safetensors.js';
import { cpuBackend } from '../support/cpu-backend.js';
import { tempFolder } from '../support/temp-folder.js';
import { readTensorFile, type Tensors, writeTensorFile } from '../support/tensor-file.js';

/**
 * Two linear layers, a convolution and one of a single pixel, with the adapters of peft 0.21.2 (`dora.peft`, …) and lycoris-lora 4.1.3 over
 * them, and what these libraries add to the weights (`*.expected`).
 */
const folder = new URL('../fixtures/goldens/lora-methods/', import.meta.url);
const file = (name: string) => fileURLToPath(new URL(`${name}.safetensors`, folder));
const cases = (await readdir(folder))
  .filter((name) => name.endsWith('.expected.safetensors'))
  .map((name) => name.replace('.expected.safetensors', ''));

const base = await readSafetensors(file('base'));
const names: LoraNames = {
  base: 'SDXL',
  weights: new Map(
    ['wide', 'square', 'conv', 'pixel'].flatMap((module) => {
      const shapeOf = (part: string) => base.tensors.get(`${module}.${part}`)?.shape ?? [];
      const target: LoraTarget = { component: 'unet', module, shape: shapeOf('weight'), biasShape: shapeOf('bias') };
      return [`unet.${module}`, `lora_unet_${module}`].map((name) => [name, target] as const);
    }),
  ),
};

/** The weights of the base with LoRAs over them, as a session computes them. */
async function merged(paths: readonly string[], weight = 1): Promise<ReadonlyMap<string, Float32Array>> {
  const updates =
    (
      await readLoraUpdates(
        paths.map((path) => ({ path, weight })),
        names,
        'unet',
      )
    ).get('unet') ?? new Map();
  const graph = new Graph('test', defaultDialect);
  const weights = new Weights(graph, { path: base.file, ...base }, { updates });
  const nothing = graph.input('nothing', 'f32', [1]);
  for (const [key, { shape }] of base.tensors)
    graph.output(`merged.${key}`, add(graph, weights.tensor(key, shape), nothing));
  expect(weights.problems).toEqual([]);
  const session = await createSession(graph, cpuBackend);
  const outputs = await session.run({ nothing: { data: new Float32Array(1), shape: [1] } });
  await session.release();
  return new Map(Object.entries(outputs).map(([name, values]) => [name.replace('merged.', ''), values]));
}

const floats = (tensors: Tensors) => new Map([...tensors].map(([key, { bytes }]) => [key, floatsFrom('F32', bytes)]));
const largestError = (a: ReadonlyMap<string, Float32Array>, b: ReadonlyMap<string, Float32Array>) =>
  Math.max(
    ...[...b].map(([key, values]) =>
      values.reduce((most, x, i) => Math.max(most, Math.abs(x - (a.get(key)?.[i] ?? 9))), 0),
    ),
  );

describe('what is trained beside LoRA', () => {
  it.each(cases)('%s merges to what its library merges it to', async (name) => {
    const expected = floats(await readTensorFile(file(`${name}.expected`)));
    const bare = floats(await readTensorFile(file('base')));
    expect(largestError(bare, expected)).toBeGreaterThan(0.1);
    expect(largestError(await merged([file(name)]), expected)).toBeLessThan(5e-7);
  });

  it('adds up: each changes the bare weight', async () => {
    const bare = floats(await readTensorFile(file('base')));
    const [one, other] = await Promise.all([merged([file('dora.out')]), merged([file('lokr.full')])]);
    const sum = new Map(
      [...bare].map(([key, values]) => [
        key,
        values.map((value, i) => (one.get(key)?.[i] ?? 0) + (other.get(key)?.[i] ?? 0) - value),
      ]),
    );
    expect(largestError(await merged([file('dora.out'), file('lokr.full')]), sum)).toBeLessThan(5e-7);
  });

  it.each<[string, string, (tensors: Tensors) => void, RegExp]>([
    [
      'without a factor',
      'loha.peft',
      (all) => all.delete('unet.wide.hada_w2_b'),
      /wide\.weight has no hada_w2_a and hada_w2_b/,
    ],
    ['without a factor', 'lokr.both', (all) => all.delete('unet.wide.lokr_w2_a'), /wide\.weight has no lokr_w2/],
    [
      'of another size',
      'lokr.peft',
      (all) => swap(all, 'unet.wide.lokr_w2', 'unet.square.lokr_w1'),
      /wide\.weight: its factors make \[6, 4\], the weight is \[12, 8\]/,
    ],
    [
      'with a core of another rank',
      'locon.core',
      (all) => swap(all, 'lora_unet_conv.lora_mid.weight', 'lora_unet_conv.lora_up.weight'),
      /conv\.weight: its factors have the ranks/,
    ],
    [
      'with lengths of another layer',
      'dora.peft',
      (all) => swap(all, 'unet.wide.lora_magnitude_vector', 'unet.square.lora_magnitude_vector'),
      /wide\.weight: it has lengths of 8 outputs, the weight has 12/,
    ],
  ])('is refused %s: %s', async (_, name, change, message) => {
    const tensors = await readTensorFile(file(name));
    change(tensors);
    const path = `${await tempFolder()}/changed.safetensors`;
    await writeTensorFile(path, tensors);
    await expect(readLora(path, names)).rejects.toMatchObject({
      reason: 'CHECKPOINT_INVALID',
      message: expect.stringMatching(message),
    });
  });
});

function swap(all: Tensors, a: string, b: string): void {
  const [first, second] = [all.get(a), all.get(b)];
  if (first === undefined || second === undefined) throw new Error(`${a} or ${b} is not there`);
  all.set(a, second).set(b, first);
}

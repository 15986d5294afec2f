import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { openBackend } from '../../src/runtime/backend.js';
import { type CaseResult, judge } from './report.js';
import { runGoldens } from './run.js';

const backend = await openBackend({ provider: 'cpu' });

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/goldens/${name}`, import.meta.url));

async function all(folder: string, only?: RegExp): Promise<CaseResult[]> {
  const results: CaseResult[] = [];
  for await (const result of runGoldens(folder, { backend, ...(only && { only }) })) results.push(result);
  return results;
}

const names = (results: readonly CaseResult[], outcome: CaseResult['outcome']) =>
  results.filter((result) => result.outcome === outcome).map(({ name }) => name);

describe('goldens on the CPU', () => {
  it('sdxl-tiny: every case that is served passes', async () => {
    const results = await all(fixture('sdxl-tiny'));
    expect(results.filter(({ outcome }) => outcome === 'failed')).toEqual([]);
    expect(names(results, 'skipped')).toEqual([]);
    const counts = { prompts: 6, unet: 3, vae: 2, txt2img: 4, img2img: 2, sched: 32, randn: 5, compel: 11 };
    for (const [kind, count] of Object.entries(counts)) {
      expect(
        names(results, 'passed').filter((name) => name.startsWith(kind)),
        kind,
      ).toHaveLength(count);
    }
  });

  it('sdxl-lora: every case passes in all three formats', async () => {
    const results = await all(fixture('sdxl-lora'));
    expect(results.filter(({ outcome }) => outcome !== 'passed')).toEqual([]);
    expect(results).toHaveLength(9);
  });

  it('sdxl-tiny-single: the prompt and the picture of a single file pass', async () => {
    const results = await all(fixture('sdxl-tiny-single'));
    expect(results.map(({ name, outcome }) => [name, outcome])).toEqual([
      ['prompt', 'passed'],
      ['txt2img', 'passed'],
    ]);
  });

  it('schedulers: every trajectory passes, those that draw noise too', async () => {
    const results = await all(fixture('schedulers'));
    expect(results.filter(({ outcome }) => outcome !== 'passed')).toEqual([]);
    expect(results).toHaveLength(39);
  });

  it('wan-tiny: every case passes, from both layouts', async () => {
    const results = await all(fixture('wan-tiny'));
    expect(results.filter(({ outcome }) => outcome === 'failed')).toEqual([]);
    expect(names(results, 'skipped')).toEqual([]);
    const counts = {
      prompt: 5,
      sched: 30,
      video: 3,
      'original prompt': 1,
      transformer: 3,
      'vae.dec': 3,
      'vae.enc': 3,
      'original transformer': 2,
      'original vae': 4,
    };
    for (const [kind, count] of Object.entries(counts)) {
      expect(
        names(results, 'passed').filter((name) => name.startsWith(kind)),
        kind,
      ).toHaveLength(count);
    }
  });

  it('wan-vace-tiny: every case passes', async () => {
    const results = await all(fixture('wan-vace-tiny'));
    expect(results.filter(({ outcome }) => outcome !== 'passed')).toEqual([]);
    expect(results.map(({ name }) => name)).toEqual([
      'transformer.s1.0',
      'transformer.s0.5',
      'v0',
      'v1',
      'v2',
      'v3',
      'v4',
      'v5',
    ]);
  });

  it('wan-vace-other: other layers, other blocks, nothing known, one frame, the original layout', async () => {
    const results = await all(fixture('wan-vace-other'));
    expect(results.filter(({ outcome }) => outcome !== 'passed')).toEqual([]);
    expect(results).toHaveLength(8);
  });

  it.each([
    ['wan-i2v-tiny', 10],
    ['wan-flf2v-tiny', 7],
    ['wan-i2v-plain-tiny', 4],
    ['wan-fun-inp-tiny', 6],
    ['wan-ti2v-tiny', 19],
    ['wan-fun-control-tiny', 7],
    ['wan-fun-control-ref-tiny', 7],
  ])('%s: every case passes, from both layouts where there are two', async (name, count) => {
    const results = await all(fixture(name));
    expect(results.filter(({ outcome }) => outcome !== 'passed')).toEqual([]);
    expect(results).toHaveLength(count);
  });

  it('qwen-tiny: every case passes where node-llama-cpp is installed, else is skipped by name', async () => {
    const results = await all(fixture('qwen-tiny'));
    expect(results.filter(({ outcome }) => outcome === 'failed')).toEqual([]);
    expect(results.map(({ name }) => name)).toEqual(
      ['f32', 'bf16'].flatMap((type) => [0, 1, 2].flatMap((i) => [`ids${i}.${type}`, `greedy${i}.${type}`])),
    );
    for (const { outcome, detail } of results) {
      if (outcome === 'skipped') expect(detail).toMatch(/^node-llama-cpp is not installed|^margin 0\.0031 is below/);
    }
  });

  // CLIP_VOCABULARY names a golden folder with the published vocabulary as files. test/tokenizer compares the same strings with the package's.
  const vocabulary = process.env.CLIP_VOCABULARY;
  it.skipIf(vocabulary === undefined)('clip-real: every string of the published vocabulary', async () => {
    const results = await all(vocabulary ?? '');
    expect(results.filter(({ outcome }) => outcome !== 'passed')).toEqual([]);
    expect(results.length).toBeGreaterThanOrEqual(150);
  });
});

describe('judge', () => {
  const compare = (actual: number[], expected: number[], tolerance: 'exact' | 'network' | 'picture') =>
    judge('case', [{ what: 'x', actual, expected, tolerance }]).outcome;

  it.each([
    ['exact equality', [1, 2], [1, 2], 'exact', 'passed'],
    ['one id off', [1, 3], [1, 2], 'exact', 'failed'],
    ['another length', [1, 2, 0], [1, 2], 'exact', 'failed'],
    ['a NaN', [Number.NaN, 2], [1, 2], 'network', 'failed'],
    ['an error within 1e-4 of the largest value', [100.009, 0], [100, 0], 'network', 'passed'],
    ['an error beyond it', [100.011, 0], [100, 0], 'network', 'failed'],
    ['two steps of 255', [10], [12], 'picture', 'passed'],
    ['three steps of 255', [10], [13], 'picture', 'failed'],
  ] as const)('%s', (_, actual, expected, tolerance, outcome) => {
    expect(compare([...actual], [...expected], tolerance)).toBe(outcome);
  });
});

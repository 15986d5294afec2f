import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { openRuntime } from '../../src/runtime/runtime.js';
import { emulatedBackend } from './emulated-backend.js';
import type { CaseResult } from './report.js';
import { runGoldens } from './run.js';

const fixture = (name: string) => fileURLToPath(new URL(`../fixtures/goldens/${name}`, import.meta.url));

/** Each network and one loop of each kind of model. Schedules, random numbers and layouts of files have no precision. */
const CASES = /^(?!sched|randn|txt2img[013]|img2img|video[02]|v[0-245]|attn_(half|conv)|.*kohya)/;

const runs = new Map<string, Promise<readonly CaseResult[]>>();

/** The results of a folder, which is run once. */
function resultsOf(folder: string, half: 'fp16' | 'bf16'): Promise<readonly CaseResult[]> {
  const key = `${folder} ${half}`;
  const run = runs.get(key) ?? runAll(folder, half);
  runs.set(key, run);
  return run;
}

async function runAll(folder: string, half: 'fp16' | 'bf16'): Promise<readonly CaseResult[]> {
  const backend = emulatedBackend(half === 'fp16' ? 'f16' : 'bf16', await openRuntime());
  const results: CaseResult[] = [];
  for await (const result of runGoldens(fixture(folder), { backend, half, only: CASES, skipsOriginal: true }))
    results.push(result);
  return results;
}

describe.each(['fp16', 'bf16'] as const)('goldens in emulated %s', (half) => {
  it.each([
    ['sdxl-tiny', 23],
    ['sdxl-lora', 1],
    ['wan-tiny', 15],
    ['wan-vace-tiny', 3],
    ['wan-vace-other', 3],
    ['wan-i2v-tiny', 4],
    ['wan-flf2v-tiny', 3],
    ['wan-i2v-plain-tiny', 2],
    ['wan-ti2v-tiny', 8],
  ])('%s: every network stays within the bounds of its rounding', async (folder, count) => {
    const results = await resultsOf(folder, half);
    expect(results.filter(({ outcome }) => outcome !== 'passed')).toEqual([]);
    expect(results).toHaveLength(count);
  });
});

/**
 * Largest error over the largest value of torch 2.13's own halves on the same networks and inputs, on the CPU: diffusers' modules
 * with `.to(dtype)`, WAN's with its float32 modules as diffusers keeps them.
 */
const TORCH = {
  fp16: {
    'sdxl-tiny': { 'unet.t999': 3.8e-3, 'unet.t421': 3.4e-3, 'unet.t1': 3.0e-3, 'vae.dec': 3.7e-3 },
    'wan-tiny': { 'transformer.t999': 1.3e-3, 'transformer.t500': 7e-4, 'transformer.t13': 7e-4 },
  },
  bf16: {
    'sdxl-tiny': { 'unet.t999': 5.5e-2, 'unet.t421': 5.0e-2, 'unet.t1': 3.4e-2, 'vae.dec': 2.9e-2 },
    'wan-tiny': { 'transformer.t999': 8.9e-3, 'transformer.t500': 6.6e-3, 'transformer.t13': 5.2e-3 },
  },
} as const;

describe.each(['fp16', 'bf16'] as const)('emulated %s beside torch', (half) => {
  it.each(Object.entries(TORCH[half]))('%s: errors are within 1.5 times of its own', async (folder, errors) => {
    const results = (await resultsOf(folder, half)).filter(({ name }) => name in errors);
    expect(results).toHaveLength(Object.keys(errors).length);
    for (const { name, measured = [] } of results) {
      const theirs = (errors as Readonly<Record<string, number>>)[name] ?? 0;
      for (const { relative } of measured) expect(relative / theirs, name).toBeLessThan(1.5);
    }
  });
});

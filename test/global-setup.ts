import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestProject } from 'vitest/node';
import { writeTinySdxl } from '../src/synthetic/sdxl.js';
import { writeSyntheticWan } from '../src/synthetic/wan.js';
import { rebuildModel } from './conformance/golden-folder.js';

const qwenGoldens = fileURLToPath(new URL('./fixtures/goldens/qwen-tiny', import.meta.url));

/** One tiny SDXL, one tiny WAN and one tiny Qwen for all test files. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  project.provide('tinySdxl', await writeTinySdxl(join(folder, 'tiny-sdxl')));
  project.provide('tinyQwen', await rebuildModel(qwenGoldens, join(folder, 'tiny-qwen'), 'model'));
  project.provide('tinyWan', await writeSyntheticWan(join(folder, 'tiny-wan'), 'wan-tiny'));
  return () => rm(folder, { recursive: true });
}

declare module 'vitest' {
  interface ProvidedContext {
    tinySdxl: string;
    tinyWan: string;
    tinyQwen: string;
  }
}

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { writeTinySdxl } from '../src/synthetic/sdxl.js';
import { writeSyntheticWan } from '../src/synthetic/wan.js';

/** One tiny SDXL and one tiny WAN for all test files. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  project.provide('tinySdxl', await writeTinySdxl(join(folder, 'tiny-sdxl')));
  project.provide('tinyWan', await writeSyntheticWan(join(folder, 'tiny-wan'), 'wan-tiny'));
  return () => rm(folder, { recursive: true });
}

declare module 'vitest' {
  interface ProvidedContext {
    tinySdxl: string;
    tinyWan: string;
  }
}

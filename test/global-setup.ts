import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { writeTinySdxl } from '../src/synthetic/sdxl.js';

/** One tiny SDXL for all test files. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  project.provide('tinySdxl', await writeTinySdxl(join(folder, 'tiny-sdxl')));
  return () => rm(folder, { recursive: true });
}

declare module 'vitest' {
  interface ProvidedContext {
    tinySdxl: string;
  }
}

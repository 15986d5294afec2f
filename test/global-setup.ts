import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestProject } from 'vitest/node';
import { writeTinySdxl } from '../src/synthetic/sdxl.js';
import { rebuildModel } from './conformance/golden-folder.js';
import { writeShallowSdxl, writeShallowWan } from './support/shallow-models.js';

const qwenGoldens = fileURLToPath(new URL('./fixtures/goldens/qwen-tiny', import.meta.url));

/** Tiny models for all test files: an SDXL, a WAN and a Qwen, and the SDXL that the goldens' LoRAs are for. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'darkroom-test-'));
  project.provide('tinySdxl', await writeShallowSdxl(join(folder, 'shallow-sdxl')));
  project.provide('wholeSdxl', await writeTinySdxl(join(folder, 'tiny-sdxl')));
  project.provide('tinyQwen', await rebuildModel(qwenGoldens, join(folder, 'tiny-qwen'), 'model'));
  project.provide('tinyWan', await writeShallowWan(join(folder, 'shallow-wan')));
  return () => rm(folder, { recursive: true });
}

declare module 'vitest' {
  interface ProvidedContext {
    tinySdxl: string;
    wholeSdxl: string;
    tinyWan: string;
    tinyQwen: string;
  }
}

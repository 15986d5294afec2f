import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Device } from '../../src/pipelines/pipeline.js';
import { createSdxlPipeline } from '../../src/pipelines/sdxl/index.js';
import { type ClipTokenizer, readClipTokenizer } from '../../src/tokenizer/clip.js';
import { caseFiles, clipTokenizerNear, Expected, readCases, rebuildFile, rebuildModel } from './golden-folder.js';
import { type Case, type CaseResult, judge, skipped } from './report.js';
import { type ScheduleCase, scheduleCase } from './schedule-cases.js';
import { type SdxlCases, sdxlCases } from './sdxl-cases.js';
import { isSingleCase, type SingleCase, singleFileCases } from './single-file-cases.js';

export interface RunOptions {
  readonly device: Exclude<Device, 'auto'>;
  /** Cases to run, by name; all when omitted. */
  readonly only?: RegExp;
}

/** Runs every case of a golden folder; what it is follows from its files. A case that throws has failed, the others go on. */
export async function* runGoldens(folder: string, { device, only }: RunOptions): AsyncGenerator<CaseResult> {
  const files = await caseFiles(folder);
  if (files.length === 0) throw new Error(`${folder} has no cases.json; give a folder of goldens`);
  const finish: (() => Promise<void>)[] = [];
  try {
    for (const file of files) {
      const content = await readCases(join(folder, file));
      const cases = await casesOf(file, folder, content, device, finish);
      for (const { name, run } of cases) {
        if (only !== undefined && !only.test(name)) continue;
        try {
          yield await run();
        } catch (error) {
          yield { name, outcome: 'failed', detail: String(error) };
        }
      }
    }
  } finally {
    for (const end of finish) await end();
  }
}

function casesOf(
  file: string,
  folder: string,
  content: unknown,
  device: Exclude<Device, 'auto'>,
  finish: (() => Promise<void>)[],
): Promise<readonly Case[]> | readonly Case[] {
  if (file === 'cases.json') return mainCases(folder, content, device, finish);
  if (file === 'case.json' && isSingleCase(content)) return singleCases(folder, content, device, finish);
  return unknownCases(file, content);
}

async function singleCases(
  folder: string,
  content: SingleCase,
  device: Exclude<Device, 'auto'>,
  finish: (() => Promise<void>)[],
): Promise<readonly Case[]> {
  const model = await mkdtemp(join(tmpdir(), 'darkroom-goldens-'));
  finish.push(() => rm(model, { recursive: true }));
  const path = await rebuildFile(folder, join(model, 'model.safetensors'));
  const pipeline = await createSdxlPipeline({ path, tokenizer: await clipTokenizerNear(folder), device, threads: 0 });
  finish.unshift(() => pipeline.dispose());
  return singleFileCases(content, pipeline, await readExpected(folder));
}

async function mainCases(
  folder: string,
  cases: unknown,
  device: Exclude<Device, 'auto'>,
  finish: (() => Promise<void>)[],
): Promise<readonly Case[]> {
  if (await isSdxl(folder)) {
    const model = await mkdtemp(join(tmpdir(), 'darkroom-goldens-'));
    finish.push(() => rm(model, { recursive: true }));
    await rebuildModel(folder, model);
    const pipeline = await createSdxlPipeline({ path: model, device, threads: 0 });
    finish.unshift(() => pipeline.dispose());
    return sdxlCases(cases as SdxlCases, await readExpected(folder), model, pipeline);
  }
  if (isList(cases, isTokenCase) && (await exists(join(folder, 'merges.txt')))) {
    const tokenizer = await readClipTokenizer(folder);
    return cases.map((entry, i) => ({ name: `tokens[${i}]`, run: () => tokenCase(`tokens[${i}]`, entry, tokenizer) }));
  }
  if (isList(cases, isScheduleCase)) {
    const expected = await readExpected(folder);
    return cases.map((entry) => ({ name: entry.key, run: () => scheduleCase(entry, expected) }));
  }
  return unknownCases('cases.json', cases);
}

function tokenCase(
  name: string,
  { text, ids, length_untruncated: length }: TokenCase,
  tokenizer: ClipTokenizer,
): CaseResult {
  const encoded = tokenizer.encode(text);
  return judge(name, [
    { what: 'ids', actual: encoded.ids, expected: ids, tolerance: 'exact' },
    { what: 'length', actual: [encoded.length], expected: [length], tolerance: 'exact' },
  ]);
}

function unknownCases(file: string, cases: unknown): readonly Case[] {
  const unknown = (name: string): Case => ({ name, run: () => skipped(name, 'a kind of case not known yet') });
  if (Array.isArray(cases)) return cases.map((_, i) => unknown(`${file}[${i}]`));
  return Object.entries(cases as Record<string, unknown>).flatMap(([kind, value]) => {
    if (Array.isArray(value)) return value.map((_, i) => unknown(`${file}: ${kind}[${i}]`));
    return typeof value === 'object' ? [unknown(`${file}: ${kind}`)] : [];
  });
}

async function readExpected(folder: string): Promise<Expected> {
  return Expected.read(join(folder, 'expected.safetensors'));
}

async function isSdxl(folder: string): Promise<boolean> {
  const text = await readFile(join(folder, 'model-configs', 'model_index.json'), 'utf8').catch(() => '');
  return text.includes('StableDiffusionXLPipeline');
}

async function exists(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined)) !== undefined;
}

interface TokenCase {
  readonly text: string;
  readonly ids: readonly number[];
  readonly length_untruncated: number;
}

function isList<T>(cases: unknown, isItem: (item: object) => item is T & object): cases is T[] {
  return Array.isArray(cases) && cases.every((item) => typeof item === 'object' && item !== null && isItem(item));
}

function isTokenCase(item: object): item is TokenCase {
  return 'text' in item && 'ids' in item && 'length_untruncated' in item;
}

function isScheduleCase(item: object): item is ScheduleCase {
  return 'name' in item && 'steps' in item && 'config' in item && 'key' in item && 'initial' in item;
}

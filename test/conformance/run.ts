import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Device } from '../../src/pipelines/pipeline.js';
import { readClipTokenizer } from '../../src/tokenizer/clip.js';
import { caseFiles, Expected, readCases, rebuildModel } from './golden-folder.js';
import { type CaseResult, judge } from './report.js';
import { type ScheduleCase, scheduleCase } from './schedule-cases.js';
import { sdxlCases, skipped } from './sdxl-cases.js';

/** Runs every case of a golden folder; what it is follows from its files. */
export async function* runGoldens(folder: string, device: Exclude<Device, 'auto'>): AsyncGenerator<CaseResult> {
  const files = await caseFiles(folder);
  if (files.length === 0) throw new Error(`${folder} has no cases.json; give a folder of goldens`);
  for (const file of files) {
    const cases = await readCases(join(folder, file));
    if (file === 'cases.json') yield* mainCases(folder, cases, device);
    else yield* unknownCases(file, cases);
  }
}

async function* mainCases(folder: string, cases: unknown, device: Exclude<Device, 'auto'>): AsyncGenerator<CaseResult> {
  if (await isSdxl(folder)) {
    const model = await mkdtemp(join(tmpdir(), 'darkroom-goldens-'));
    try {
      await rebuildModel(folder, model);
      yield* sdxlCases(model, cases as object, await readExpected(folder), device);
    } finally {
      await rm(model, { recursive: true });
    }
  } else if (isList(cases, isTokenCase) && (await exists(join(folder, 'merges.txt')))) {
    const tokenizer = await readClipTokenizer(folder);
    for (const [i, { text, ids, length_untruncated: length }] of cases.entries()) {
      const encoded = tokenizer.encode(text);
      yield judge(`tokens[${i}]`, [
        { what: 'ids', actual: encoded.ids, expected: ids, tolerance: 'exact' },
        { what: 'length', actual: [encoded.length], expected: [length], tolerance: 'exact' },
      ]);
    }
  } else if (isList(cases, isScheduleCase)) {
    const expected = await readExpected(folder);
    for (const entry of cases) yield scheduleCase(entry, expected);
  } else {
    yield* unknownCases('cases.json', cases);
  }
}

async function* unknownCases(file: string, cases: unknown): AsyncGenerator<CaseResult> {
  if (Array.isArray(cases)) {
    for (const i of cases.keys()) yield skipped(`${file}[${i}]`, 'a kind of case not known yet');
    return;
  }
  const kinds = Object.entries(cases as Record<string, unknown>).filter(([, value]) => typeof value === 'object');
  for (const [kind, value] of kinds) {
    const count = Array.isArray(value) ? value.length : 1;
    for (let i = 0; i < count; i += 1) yield skipped(`${file}: ${kind}[${i}]`, 'a kind of case not known yet');
  }
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

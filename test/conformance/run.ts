import { cp, mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createSdxlPipeline, type SdxlPipeline } from '../../src/pipelines/sdxl/pipeline.js';
import { loadWanNetworks, type WanNetworks } from '../../src/pipelines/wan/networks.js';
import type { Backend } from '../../src/runtime/backend.js';
import { type ClipTokenizer, readClipTokenizer } from '../../src/tokenizer/clip.js';
import { compelCases, isCompelCases } from './compel-cases.js';
import { caseFiles, clipTokenizerNear, Expected, readCases, rebuildFile, rebuildModel } from './golden-folder.js';
import { isLoraCases, loraCases } from './lora-cases.js';
import { isQwenCase, qwenCases } from './qwen-cases.js';
import { type Case, type CaseResult, type HalfTolerances, judge, judgeHalf, skipped } from './report.js';
import { type ScheduleCase, scheduleCase } from './schedule-cases.js';
import { type SdxlCases, sdxlCases } from './sdxl-cases.js';
import { isSingleCase, singleFileCases } from './single-file-cases.js';
import { originalCases, rebuildOriginal, type WanCases, wanCases } from './wan-cases.js';

/** Of diffusers: text to video, VACE, image to video. */
const WAN_PIPELINES: readonly string[] = ['WanPipeline', 'WanVACEPipeline', 'WanImageToVideoPipeline'];

export interface RunOptions {
  readonly backend: Backend;
  /** The half precision whose tolerances hold. Omitted: networks compute in float32. */
  readonly half?: HalfTolerances | undefined;
  /** Cases to run, by name; all when omitted. */
  readonly only?: RegExp;
  /** The cases of WAN's original layout are left out: its graphs are those of diffusers' layout. Default: false. */
  readonly skipsOriginal?: boolean;
}

/** Runs every case of a golden folder; what it is follows from its files. A case that throws has failed, the others go on. */
export async function* runGoldens(
  folder: string,
  { backend, half, only, skipsOriginal = false }: RunOptions,
): AsyncGenerator<CaseResult> {
  const files = await caseFiles(folder);
  if (files.length === 0) throw new Error(`${folder} has no cases.json; give a folder of goldens`);
  const finish: (() => Promise<void>)[] = [];
  const model = new GoldenModel(folder, backend, finish);
  const original = skipsOriginal ? undefined : join(folder, 'original_expected.safetensors');
  try {
    for (const file of files) {
      const content = await readCases(join(folder, file));
      for (const { name, run } of await casesOf({ folder, file, original }, content, model, finish)) {
        if (only !== undefined && !only.test(name)) continue;
        try {
          const result = await run();
          yield half === undefined ? result : judgeHalf(result, half);
        } catch (error) {
          yield { name, outcome: 'failed', detail: String(error) };
        }
      }
    }
  } finally {
    for (const end of finish) await end();
  }
}

async function casesOf(
  { folder, file, original }: { folder: string; file: string; original: string | undefined },
  content: unknown,
  model: GoldenModel,
  finish: (() => Promise<void>)[],
): Promise<readonly Case[]> {
  const expected = () => Expected.read(join(folder, file.replace(/cases?\.json$/, 'expected.safetensors')));
  if (file === 'case.json' && isSingleCase(content)) {
    return singleFileCases(content, await model.single(), await expected());
  }
  const pipeline = await pipelineOf(folder);
  if (pipeline !== undefined && WAN_PIPELINES.includes(pipeline) && file === 'cases.json') {
    const cases = content as WanCases;
    const inputs = await expected();
    const networks = await model.wan();
    const known = wanCases(cases, inputs, networks);
    if (original === undefined || !(await exists(original))) return known;
    return [...known, ...originalCases(cases, inputs, await Expected.read(original), await model.originalWan())];
  }
  const isModel = pipeline === 'StableDiffusionXLPipeline';
  if (isModel && isCompelCases(content)) {
    const { pipeline } = await model.diffusers();
    return compelCases(content, await expected(), pipeline.networks.prompts.encoder);
  }
  if (file !== 'cases.json') return unknownCases(file, content);
  if (isLoraCases(content)) {
    const base = join(folder, content.base.split(' ')[0] ?? '');
    const { unet } = (await readCases(join(base, 'cases.json'))) as SdxlCases;
    if (unet === undefined) throw new Error(`${base} has no UNet case to run a LoRA on`);
    const path = await model.baseIn(base);
    return loraCases(content, {
      folder,
      model: path,
      inputs: unet,
      expected: await expected(),
      backend: model.backend,
      finish,
    });
  }
  if (isList(content, isQwenCase) && (await isQwen(folder))) return qwenCases(folder, content, finish);
  if (isModel) {
    const { path, pipeline } = await model.diffusers();
    return sdxlCases(content as SdxlCases, await expected(), path, pipeline);
  }
  if (isList(content, isTokenCase) && (await exists(join(folder, 'merges.txt')))) {
    const tokenizer = await readClipTokenizer(folder);
    return content.map((entry, i) => ({
      name: `tokens[${i}]`,
      run: () => tokenCase(`tokens[${i}]`, entry, tokenizer),
    }));
  }
  if (isList(content, isScheduleCase)) {
    const outputs = await expected();
    return content.map((entry) => ({ name: entry.key, run: () => scheduleCase(entry, outputs) }));
  }
  return unknownCases(file, content);
}

/** The model of a golden folder, rebuilt and loaded when the first file of cases asks for it. */
class GoldenModel {
  readonly #goldens: string;
  readonly #backend: Backend;
  readonly #finish: (() => Promise<void>)[];
  #diffusers: Promise<{ path: string; pipeline: SdxlPipeline }> | undefined;

  /** @param finish takes what is to be run at the end, in order */
  constructor(goldens: string, backend: Backend, finish: (() => Promise<void>)[]) {
    this.#goldens = goldens;
    this.#backend = backend;
    this.#finish = finish;
  }

  /** From `model-configs`, in diffusers layout. */
  diffusers(): Promise<{ path: string; pipeline: SdxlPipeline }> {
    this.#diffusers ??= this.#folder().then(async (folder) => {
      const path = await rebuildModel(this.#goldens, folder);
      return { path, pipeline: await this.#open({ path }) };
    });
    return this.#diffusers;
  }

  /**
   * The model that a LoRA goes on, in diffusers layout. Those outputs were made with the first tokenizer for both encoders: the
   * second one's own padding would show behind the end token.
   */
  async baseIn(goldens: string): Promise<string> {
    const path = await rebuildModel(goldens, await this.#folder());
    await rm(join(path, 'tokenizer_2'), { recursive: true });
    await cp(join(path, 'tokenizer'), join(path, 'tokenizer_2'), { recursive: true });
    return path;
  }

  get backend(): Backend {
    return this.#backend;
  }

  /** One file in the original key layout. */
  async single(): Promise<SdxlPipeline> {
    const path = await rebuildFile(this.#goldens, join(await this.#folder(), 'model.safetensors'));
    return this.#open({ path, tokenizer: await clipTokenizerNear(this.#goldens) });
  }

  async wan(): Promise<WanNetworks> {
    return this.#openWan(await rebuildModel(this.#goldens, await this.#folder()));
  }

  /** The same kind of model in the original layout. */
  async originalWan(): Promise<WanNetworks> {
    return this.#openWan(await rebuildOriginal(this.#goldens, await this.#folder()));
  }

  async #openWan(path: string): Promise<WanNetworks> {
    const backend = this.#backend;
    const networks = await loadWanNetworks({ path, backend });
    this.#finish.unshift(() => networks.release());
    return networks;
  }

  async #folder(): Promise<string> {
    const folder = await mkdtemp(join(tmpdir(), 'darkroom-goldens-'));
    this.#finish.push(() => rm(folder, { recursive: true }));
    return folder;
  }

  async #open(source: { path: string; tokenizer?: string }): Promise<SdxlPipeline> {
    const pipeline = await createSdxlPipeline({ ...source, backend: this.#backend });
    this.#finish.unshift(() => pipeline.dispose());
    return pipeline;
  }
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

/** What the model of a golden folder is for; undefined where there is none. */
async function pipelineOf(folder: string): Promise<string | undefined> {
  const text = await readFile(join(folder, 'model-configs', 'model_index.json'), 'utf8').catch(() => '{}');
  return (JSON.parse(text) as { _class_name?: string })._class_name;
}

/** A golden folder in transformers' layout. */
async function isQwen(folder: string): Promise<boolean> {
  const text = await readFile(join(folder, 'model', 'config.json'), 'utf8').catch(() => '{}');
  return (JSON.parse(text) as { architectures?: string[] }).architectures?.[0] === 'Qwen2ForCausalLM';
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

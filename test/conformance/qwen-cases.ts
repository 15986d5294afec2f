/** Token ids and greedy decoding by llama.cpp, from the GGUF that darkroom makes of the goldens' folder. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { findLlama, type Llama, type LlamaModel } from '../../src/enhancer/llama.js';
import { convertToGguf } from '../../src/enhancer/qwen/convert.js';
import { rebuildModel } from './golden-folder.js';
import { type Case, type CaseResult, judge, skipped } from './report.js';

export interface QwenCase {
  readonly prompt: string;
  readonly ids: readonly number[];
  readonly max_new_tokens: number;
  readonly greedy: readonly number[];
  /** The smallest gap between the best and the second-best logit on the path. */
  readonly min_margin: number;
}

export function isQwenCase(item: object): item is QwenCase {
  return 'prompt' in item && 'ids' in item && 'greedy' in item && 'max_new_tokens' in item && 'min_margin' in item;
}

/** Types that hold the goldens' BF16 weights exactly. */
const exactTypes = ['f32', 'bf16'] as const;

/**
 * llama.cpp's CPU rounds activations to BF16 before it multiplies them with BF16 weights. Over some layers that moves a logit of
 * about 1 by a few of bfloat16's steps of 2^-8: where the two best are nearer than four, another token is no fault. https://github.com/ggml-org/ggml/blob/d99724f2b141fed9e1a9f402213506c081433465/src/ggml-cpu/ggml-cpu.c#L394-L399
 */
const UNDECIDED_BY_BF16 = 2 ** -6;

/** @param finish takes what is to be run at the end */
export function qwenCases(
  goldens: string,
  cases: readonly QwenCase[],
  finish: (() => Promise<void>)[],
): readonly Case[] {
  const opened = new Map<string, Promise<LlamaModel>>();
  let llama: Promise<Llama | undefined> | undefined;
  const open = async (type: (typeof exactTypes)[number]): Promise<LlamaModel | undefined> => {
    llama ??= openLlama(finish);
    const found = await llama;
    if (found === undefined) return undefined;
    const model = opened.get(type) ?? openModel(found, goldens, type, finish);
    opened.set(type, model);
    return model;
  };
  return exactTypes.flatMap((type) =>
    cases.flatMap((entry, i): Case[] => {
      const named = (kind: string, run: (name: string, model: LlamaModel) => Promise<CaseResult>): Case => {
        const name = `${kind}${i}.${type}`;
        return {
          name,
          run: async () => {
            const model = await open(type);
            return model === undefined
              ? skipped(name, 'node-llama-cpp is not installed: npm run setup:llama')
              : run(name, model);
          },
        };
      };
      return [
        named('ids', async (name, model) =>
          judge(name, [
            { what: 'ids', actual: model.tokenize(entry.prompt, true), expected: entry.ids, tolerance: 'exact' },
          ]),
        ),
        named('greedy', async (name, model) => {
          const result = judge(name, [
            { what: 'tokens', actual: await greedy(model, entry), expected: entry.greedy, tolerance: 'exact' },
          ]);
          return result.outcome === 'failed' && type === 'bf16' && entry.min_margin < UNDECIDED_BY_BF16
            ? skipped(name, `margin ${entry.min_margin.toFixed(4)} is below what BF16 activations decide, 2^-6`)
            : result;
        }),
      ];
    }),
  );
}

async function openLlama(finish: (() => Promise<void>)[]): Promise<Llama | undefined> {
  const found = await findLlama();
  const options = { build: 'never', skipDownload: true, gpu: false, logLevel: 'error' } as const;
  // More threads than free cores wait for each other in a loop.
  const llama = await found?.getLlama({ ...options, maxThreads: 1 });
  if (llama !== undefined) finish.unshift(() => llama.dispose());
  return llama;
}

async function openModel(
  llama: Llama,
  goldens: string,
  type: (typeof exactTypes)[number],
  finish: (() => Promise<void>)[],
): Promise<LlamaModel> {
  const scratch = await mkdtemp(join(tmpdir(), 'darkroom-goldens-'));
  finish.push(() => rm(scratch, { recursive: true }));
  const folder = await rebuildModel(goldens, join(scratch, 'model'), 'model');
  const { path } = await convertToGguf(folder, { type, cacheFolder: scratch });
  const model = await llama.loadModel({ modelPath: path });
  finish.unshift(() => model.dispose());
  return model;
}

async function greedy(model: LlamaModel, { ids, max_new_tokens: count }: QwenCase): Promise<readonly number[]> {
  const context = await model.createContext({ contextSize: 256, threads: 1 });
  try {
    const tokens: number[] = [];
    const evaluation = context.getSequence().evaluate(ids, { temperature: 0, yieldEogToken: true });
    for await (const token of evaluation) {
      tokens.push(token);
      if (tokens.length === count) break;
    }
    return tokens;
  } finally {
    await context.dispose();
  }
}

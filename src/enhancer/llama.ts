import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { InferenceError } from '../errors.js';

/** The tested version, which `npm run setup:llama` installs. */
export const LLAMA_VERSION = '3.22.1';
const PACKAGE = 'node-llama-cpp';
/** Folder of `npm run setup:llama`, inside this installation. */
const FOLDER = '.llama';

/** The part of node-llama-cpp that is used here. The package is optional, so its own types may be missing. */
export interface LlamaPackage {
  getLlama(options: {
    /** false: the CPU. */
    readonly gpu: LlamaGpu | 'auto' | false;
    readonly build: 'never';
    readonly skipDownload: true;
    readonly logLevel: 'error' | 'disabled';
    readonly logger?: (level: string, message: string) => void;
    readonly maxThreads?: number;
  }): Promise<Llama>;
}

export type LlamaGpu = 'cuda' | 'vulkan' | 'metal';

export interface Llama {
  /** false: the CPU. */
  readonly gpu: LlamaGpu | false;
  loadModel(options: {
    readonly modelPath: string;
    readonly onLoadProgress?: (fraction: number) => void;
  }): Promise<LlamaModel>;
  dispose(): Promise<void>;
}

/** Memory that the package expects to need, in bytes. */
interface LlamaMemory {
  readonly memoryUsage: { readonly ram: number; readonly vram: number };
}

export interface LlamaModel extends LlamaMemory {
  readonly trainContextSize: number;
  /** @param specialTokens true: `<|im_end|>` and the like are control tokens; false: they are text */
  tokenize(text: string, specialTokens: boolean): readonly number[];
  /** @param lastTokens the tokens before: a space may depend on them */
  detokenize(tokens: readonly number[], specialTokens: boolean, lastTokens?: readonly number[]): string;
  createContext(options: {
    readonly contextSize: number;
    readonly sequences?: number;
    readonly threads?: number;
  }): Promise<LlamaContext>;
  dispose(): Promise<void>;
}

export interface LlamaContext extends LlamaMemory {
  getSequence(): LlamaSequence;
  dispose(): Promise<void>;
}

/** One text in a context. Its tokens so far stay evaluated. */
export interface LlamaSequence {
  readonly nextTokenIndex: number;
  /** Keeps the common beginning of the evaluated and the given tokens, and drops the rest. */
  adaptStateToTokens(tokens: readonly number[], allowShift: boolean): Promise<void>;
  evaluateWithoutGeneratingNewTokens(tokens: readonly number[]): Promise<void>;
  /** Evaluates tokens, then yields new ones until the model ends its text. */
  evaluate(
    tokens: readonly number[],
    options: {
      readonly temperature: number;
      readonly topP?: number;
      readonly seed?: number;
      readonly yieldEogToken?: boolean;
    },
  ): AsyncGenerator<number>;
}

/**
 * Finds node-llama-cpp as an ordinary dependency or where `npm run setup:llama` put it.
 * @returns undefined if it is not installed
 */
export async function findLlama(): Promise<LlamaPackage | undefined> {
  const here = fileURLToPath(import.meta.url);
  // The folder of package.json is above this file; in the build it is one level higher.
  for (let folder = dirname(here); folder !== dirname(folder); folder = dirname(folder)) {
    const found = resolveFrom(join(folder, FOLDER, 'package.json'));
    if (found !== undefined) return import(found);
  }
  const found = resolveFrom(here);
  return found === undefined ? undefined : import(found);
}

function resolveFrom(file: string): string | undefined {
  try {
    return pathToFileURL(createRequire(file).resolve(PACKAGE)).href;
  } catch {
    return undefined;
  }
}

/** @throws InferenceError LLAMA_MISSING with the command that installs it */
export async function loadLlama(): Promise<LlamaPackage> {
  const found = await findLlama();
  if (found !== undefined) return found;
  throw new InferenceError(
    'LLAMA_MISSING',
    `prompts are enhanced by ${PACKAGE}, which is not installed; run: npm run setup:llama`,
  );
}

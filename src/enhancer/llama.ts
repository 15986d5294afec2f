import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { InferenceError } from '../errors.js';

/** The version that was tried; `npm run setup:llama` installs it. */
export const LLAMA_VERSION = '3.22.1';
const PACKAGE = 'node-llama-cpp';
/** Where `npm run setup:llama` puts it, in the folder of this installation. */
const FOLDER = '.llama';

/** As much of node-llama-cpp as is used here: an optional package, so its own types need not be there. */
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

/** What the package expects that its part of memory is, in bytes. */
interface LlamaMemory {
  readonly memoryUsage: { readonly ram: number; readonly vram: number };
}

export interface LlamaModel extends LlamaMemory {
  readonly trainContextSize: number;
  /** @param specialTokens whether `<|im_end|>` and the like are tokens of their own, or text */
  tokenize(text: string, specialTokens: boolean): readonly number[];
  /** @param lastTokens what stands before: a space may depend on it */
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

/** One text in a context: its tokens so far are kept, evaluated. */
export interface LlamaSequence {
  readonly nextTokenIndex: number;
  /** Keeps what the tokens begin with alike, and forgets the rest. */
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
 * Finds node-llama-cpp, as an ordinary dependency or where `npm run setup:llama` put it.
 * @returns undefined where it is not installed
 */
export async function findLlama(): Promise<LlamaPackage | undefined> {
  const here = fileURLToPath(import.meta.url);
  // The folder of package.json is above this file, as source and, one level more, as build.
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

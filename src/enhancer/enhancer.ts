import { stat } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import type { Device } from '../device.js';
import { InferenceError } from '../errors.js';
import { elementCount } from '../std/element-count.js';
import type { GgufHeader } from '../weights/gguf/gguf-header.js';
import { cleanEnhancement } from './clean-text.js';
import {
  type Llama,
  type LlamaContext,
  type LlamaGpu,
  type LlamaModel,
  type LlamaSequence,
  loadLlama,
} from './llama.js';
import { MAX_PROMPT_TOKENS, PromptFrame } from './prompt-tokens.js';
import { convertToGguf } from './qwen/convert.js';
import type { GgufFileType } from './qwen/gguf-file-types.js';
import { readQwenGguf } from './qwen/qwen-gguf.js';
import { type EnhanceTemplate, MAX_NEW_TOKENS } from './template.js';
import { TextWriter } from './text-writer.js';

/** Location and settings of the language model. */
export interface QwenSource {
  /** A GGUF file, or a Qwen2 or Qwen2.5 folder in transformers' layout. */
  readonly path: string;
  /** Storage type that a folder is converted to. */
  readonly type: GgufFileType;
  /** Folder for converted files. Default: `defaultGgufCache()`. */
  readonly cacheFolder?: string | undefined;
  readonly template: EnhanceTemplate;
  /** Number of prompts that are written at the same time. */
  readonly parallel: number;
}

/** One prompt with resolved and valid settings. */
export interface EnhanceRequest {
  readonly prompt: string;
  readonly maxTokens: number;
  /** 0 always picks the likeliest token. */
  readonly temperature: number;
  readonly topP: number;
  readonly seed: number;
}

/** A piece of text, emitted as the model writes it. */
export interface TextEvent {
  readonly kind: 'text';
  readonly text: string;
}

/** Result of enhancing a prompt. */
export interface Enhancement {
  /** Cleaned text; never empty. */
  readonly prompt: string;
  readonly promptTokens: number;
  /** Number of prompt tokens that were cut. */
  readonly droppedTokens: number;
  readonly newTokens: number;
  /** Time from the request to the first new token, in ms inside the engine process. */
  readonly firstTokenMs: number;
  readonly totalMs: number;
  readonly reachedMaxTokens: boolean;
}

export interface EnhancerInfo {
  readonly family: 'qwen';
  readonly parameters: number;
  readonly weightBytes: number;
  /** Storage type of the largest tensor, by ggml's name. */
  readonly storage: string;
  readonly isChat: boolean;
  /** Memory that llama.cpp expects to need, in bytes. */
  readonly memory: { readonly ram: number; readonly vram: number };
  readonly unused: readonly string[];
}

export interface LoadEnhancerOptions {
  readonly device: Device;
  /** CPU threads; 0: one less than there are cores. */
  readonly threads: number;
  readonly onProgress?: (stage: 'converting' | 'loading', fraction: number) => void;
}

const GPUS: Readonly<Record<Device, LlamaGpu | 'auto' | false>> = {
  auto: 'auto',
  cpu: false,
  cuda: 'cuda',
  tensorrt: 'cuda',
  webgpu: 'vulkan',
};

/** A loaded language model that enhances up to `parallel` prompts at a time. The caller limits the number. */
export class Enhancer {
  readonly info: EnhancerInfo;
  /** cpu, cuda, vulkan or metal. */
  readonly device: string;
  readonly #llama: Llama;
  readonly #model: LlamaModel;
  readonly #frame: PromptFrame;
  readonly #template: EnhanceTemplate;
  readonly #contextSize: number;
  /** Free sequences. The last used one comes first, because its prefix is evaluated. */
  readonly #sequences: LlamaSequence[];

  private constructor(
    llama: Llama,
    model: LlamaModel,
    setup: {
      readonly info: EnhancerInfo;
      readonly frame: PromptFrame;
      readonly template: EnhanceTemplate;
      readonly contextSize: number;
      readonly sequences: LlamaSequence[];
    },
  ) {
    this.#llama = llama;
    this.#model = model;
    this.device = llama.gpu === false ? 'cpu' : llama.gpu;
    this.info = setup.info;
    this.#frame = setup.frame;
    this.#template = setup.template;
    this.#contextSize = setup.contextSize;
    this.#sequences = setup.sequences;
  }

  /**
   * Converts the model if it is a folder, loads it and evaluates the template's fixed part.
   * @throws InferenceError LLAMA_MISSING, PROVIDER_UNAVAILABLE, OUT_OF_MEMORY, and the errors of reading and converting
   * the model
   */
  static async load(source: QwenSource, { device, threads, onProgress }: LoadEnhancerOptions): Promise<Enhancer> {
    const { template, parallel } = source;
    const { getLlama } = await loadLlama();
    const header = await readQwenGguf(await ggufOf(source, (fraction) => onProgress?.('converting', fraction)));
    // Of a split file llama.cpp takes the first part.
    const { path } = header;
    const llama = await getLlama({
      gpu: GPUS[device],
      build: 'never',
      skipDownload: true,
      logLevel: 'error',
      // llama.cpp's threads spin at barriers: one thread that shares its core delays all of them.
      maxThreads: threads || Math.max(1, availableParallelism() - 1),
    }).catch((error: unknown) => refuseDevice(device, error));
    const model = await llama
      .loadModel({ modelPath: path, onLoadProgress: (fraction) => onProgress?.('loading', fraction) })
      .catch((error: unknown) => refuseModel(path, error));
    const isChat = template.format === 'auto' ? takesTurns(header) : template.format === 'chat';
    const frame = new PromptFrame(model, template, isChat);
    const contextSize = Math.min(model.trainContextSize, frame.length + MAX_PROMPT_TOKENS + MAX_NEW_TOKENS);
    if (contextSize < frame.length + 2) {
      throw new InferenceError(
        'MODEL_UNSUPPORTED',
        `the template takes ${frame.length} tokens, which leaves no room in the ${contextSize} of ${path}; shorten it`,
      );
    }
    const context = await model
      .createContext({ contextSize, sequences: parallel })
      .catch((error: unknown) => refuseModel(path, error));
    const sequences = Array.from({ length: parallel }, () => context.getSequence());
    const info = describe(header, isChat, model, context);
    const enhancer = new Enhancer(llama, model, { info, frame, template, contextSize, sequences });
    const first = sequences.at(-1);
    if (first !== undefined) await enhancer.#evaluatePrefix(first);
    return enhancer;
  }

  /**
   * Writes one prompt: text events, then the result.
   *
   * @param signal checked between two tokens; its reason is thrown
   * @throws InferenceError ENHANCEMENT_EMPTY if the model wrote nothing useful
   */
  async *enhance(
    { prompt, maxTokens, temperature, topP, seed }: EnhanceRequest,
    signal: AbortSignal,
  ): AsyncGenerator<TextEvent, Enhancement, undefined> {
    const startedAt = performance.now();
    const room = this.#contextSize - this.#frame.length;
    const limit = Math.min(maxTokens, room - 1);
    const { tokens, promptTokens, droppedTokens } = this.#frame.around(
      prompt,
      Math.min(MAX_PROMPT_TOKENS, room - limit),
    );
    const sequence = this.#sequences.pop();
    if (sequence === undefined) throw new Error('more prompts at once than the engine was started for');
    try {
      await this.#evaluatePrefix(sequence);
      signal.throwIfAborted();
      const writer = new TextWriter(this.#model, this.#stops());
      let firstTokenMs: number | undefined;
      const rest = tokens.slice(this.#frame.prefix.length);
      // llama.cpp's seeds have 32 bits.
      const sampling = { temperature, topP, seed: seed % 2 ** 32 };
      for await (const token of sequence.evaluate(rest, sampling)) {
        firstTokenMs ??= performance.now() - startedAt;
        signal.throwIfAborted();
        const text = writer.add(token);
        if (text !== '') yield { kind: 'text', text };
        if (writer.hasStopped || writer.tokens >= limit) break;
      }
      const reachedMaxTokens = writer.tokens >= limit && !writer.hasStopped;
      const cleaned = cleanEnhancement(writer.text, !reachedMaxTokens);
      if (!/[\p{L}\p{N}]/u.test(cleaned)) {
        throw new InferenceError('ENHANCEMENT_EMPTY', 'the language model wrote nothing of use; try another seed', {
          retryAfterMs: 1000,
        });
      }
      const totalMs = performance.now() - startedAt;
      return {
        prompt: cleaned,
        promptTokens,
        droppedTokens,
        newTokens: writer.tokens,
        firstTokenMs: firstTokenMs ?? totalMs,
        totalMs,
        reachedMaxTokens,
      };
    } finally {
      this.#sequences.push(sequence);
    }
  }

  async dispose(): Promise<void> {
    await this.#model.dispose();
    await this.#llama.dispose();
  }

  /** Keeps exactly the prefix: only the same tokens in the same runs give the same text for the same seed. */
  async #evaluatePrefix(sequence: LlamaSequence): Promise<void> {
    const { prefix } = this.#frame;
    await sequence.adaptStateToTokens(prefix, false);
    const rest = prefix.slice(sequence.nextTokenIndex);
    if (rest.length > 0) await sequence.evaluateWithoutGeneratingNewTokens(rest);
  }

  /** A base model continues with further examples, so its text ends with its paragraph. */
  #stops(): readonly string[] {
    return this.info.isChat ? this.#template.stop : [...this.#template.stop, '\n'];
  }
}

async function ggufOf(
  { path, type, cacheFolder }: QwenSource,
  onFraction: (fraction: number) => void,
): Promise<string> {
  const entry = await stat(path).catch(() => undefined);
  if (entry === undefined) throw new InferenceError('CHECKPOINT_INVALID', `${path} does not exist or cannot be read`);
  if (!entry.isDirectory()) return path;
  let isConverting = false;
  const converted = await convertToGguf(path, {
    type,
    ...(cacheFolder !== undefined && { cacheFolder }),
    onProgress({ bytesDone, bytesTotal }) {
      // A cached file reports progress once, as complete.
      isConverting ||= bytesDone < bytesTotal;
      if (isConverting) onFraction(bytesDone / bytesTotal);
    },
  });
  return converted.path;
}

/** Base models ship the chat template, too. Only instruct models have the end of a turn as their end-of-text token. */
function takesTurns({ metadata }: GgufHeader): boolean {
  const tokens = metadata.get('tokenizer.ggml.tokens');
  const eos = metadata.get('tokenizer.ggml.eos_token_id');
  return (
    metadata.has('tokenizer.chat_template') &&
    Array.isArray(tokens) &&
    typeof eos === 'number' &&
    tokens[eos] === '<|im_end|>'
  );
}

function describe(
  { tensors }: GgufHeader,
  isChat: boolean,
  { memoryUsage: ofModel }: LlamaModel,
  { memoryUsage: ofContext }: LlamaContext,
): EnhancerInfo {
  const all = [...tensors.values()];
  const [largest] = all.sort((a, b) => b.length - a.length);
  return {
    family: 'qwen',
    parameters: all.reduce((sum, { shape }) => sum + elementCount(shape), 0),
    weightBytes: all.reduce((sum, { length }) => sum + length, 0),
    storage: largest?.type ?? '',
    isChat,
    memory: { ram: ofModel.ram + ofContext.ram, vram: ofModel.vram + ofContext.vram },
    unused: [],
  };
}

function refuseDevice(device: Device, error: unknown): never {
  const problem = error instanceof Error ? error.message.split('\n')[0] : String(error);
  throw new InferenceError(
    'PROVIDER_UNAVAILABLE',
    `llama.cpp does not open ${device}: ${problem}; run npm run setup:llama, or set DEVICE=cpu`,
    { cause: error },
  );
}

function refuseModel(path: string, error: unknown): never {
  const problem = error instanceof Error ? error.message.split('\n')[0] : String(error);
  // node-llama-cpp's InsufficientMemoryError by name: the class is not exported.
  if (error instanceof Error && /InsufficientMemory/.test(error.constructor.name)) {
    throw new InferenceError('OUT_OF_MEMORY', `there is not enough memory for ${path}: ${problem}`, { cause: error });
  }
  throw new InferenceError('CHECKPOINT_INVALID', `llama.cpp cannot load ${path}: ${problem}`, { cause: error });
}

import { open, stat } from 'node:fs/promises';
import { InferenceError } from '../../../errors.js';
import { type NetworkSession, outputOf } from '../../../runtime/session.js';
import { readUmt5Tokenizer, type Umt5Tokenizer, umt5TokenizerFromModel } from '../../../tokenizer/umt5.js';
import type { WeightFiles } from '../../../weights/weight-files.js';
import type { Network } from '../../common/build-networks.js';
import type { NetworkOpener } from '../../common/network-opener.js';
import type { WanCheckpoint } from '../checkpoint/checkpoint.js';
import type { TextEncoderConfig } from '../model/config.js';
import { relativePositionBuckets } from '../model/relative-positions.js';
import { cleanPrompt } from './clean-prompt.js';

/** Name of the tokenizer that ComfyUI stores in the file of the text encoder. */
const STORED_TOKENIZER = 'spiece_model';
/** UMT5's has 5 MB. */
const MAX_TOKENIZER_BYTES = 50_000_000;

export interface EncodedPrompt {
  /** [T, C], a row for each of the prompt's own tokens. */
  readonly states: Float32Array;
  /** The prompt's own tokens, the end token last. */
  readonly ids: Int32Array;
  /** Tokens of the whole prompt, before it was cut to the tokenizer's limit. */
  readonly length: number;
}

/** UMT5's tokenizer and encoder, loaded. It turns prompts into the states that the transformer is conditioned on. */
export class PromptEncoder {
  readonly tokenizer: Umt5Tokenizer;
  readonly #session: NetworkSession;
  readonly #config: TextEncoderConfig;

  constructor(tokenizer: Umt5Tokenizer, session: NetworkSession, config: TextEncoderConfig) {
    this.tokenizer = tokenizer;
    this.#session = session;
    this.#config = config;
  }

  async encode(prompt: string, signal?: AbortSignal): Promise<EncodedPrompt> {
    const { ids, length } = this.tokenizer.encode(cleanPrompt(prompt));
    const { vocab_size, relative_attention_num_buckets, relative_attention_max_distance } = this.#config;
    const foreign = ids.find((id) => id >= vocab_size);
    if (foreign !== undefined) {
      throw new InferenceError(
        'CHECKPOINT_INVALID',
        `the tokenizer has a token ${foreign}, the text encoder knows ${vocab_size}: they belong to different models`,
      );
    }
    const tokens = ids.length;
    const buckets = relativePositionBuckets(tokens, relative_attention_num_buckets, relative_attention_max_distance);
    const feeds = { ids: { data: ids, shape: [tokens] }, buckets: { data: buckets, shape: [tokens, tokens] } };
    const outputs = await this.#session.run(feeds, { signal });
    return { states: outputOf(outputs, 'states', 'the text encoder'), ids, length };
  }

  release(): Promise<void> {
    return this.#session.release();
  }
}

/**
 * Loads the tokenizer and the encoder, the largest part of the model.
 * @throws InferenceError CHECKPOINT_INVALID for a tokenizer that cannot be read
 */
export async function openPromptEncoder(
  { tokenizer: path, config }: WanCheckpoint,
  network: Network,
  opener: NetworkOpener,
): Promise<PromptEncoder> {
  const tokenizer = await opener.sources.reading(() => openTokenizer(path, network.weights.files));
  return new PromptEncoder(tokenizer, await opener.open(network), config.textEncoder);
}

/**
 * The tokenizer beside the weights; where there is none, the `spiece.model` that ComfyUI stores among them.
 * @throws InferenceError CHECKPOINT_INVALID
 */
export async function openTokenizer(path: string, { tensors }: WeightFiles): Promise<Umt5Tokenizer> {
  const stored = tensors.get(STORED_TOKENIZER);
  const isBeside = (await stat(path).catch(() => undefined)) !== undefined;
  if (stored === undefined || isBeside) return readUmt5Tokenizer(path);
  const { file, offset, length } = stored;
  if (length > MAX_TOKENIZER_BYTES) {
    throw new InferenceError(
      'CHECKPOINT_INVALID',
      `${file} has a tokenizer of ${length} bytes, the limit is ${MAX_TOKENIZER_BYTES}`,
    );
  }
  const handle = await open(file, 'r');
  try {
    const bytes = new Uint8Array(length);
    await handle.read(bytes, 0, length, offset);
    return umt5TokenizerFromModel(bytes);
  } catch (error) {
    throw new InferenceError('CHECKPOINT_INVALID', `${file} has a tokenizer that ${messageOf(error)}`, {
      cause: error,
    });
  } finally {
    await handle.close();
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

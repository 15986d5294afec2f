import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { readQwenConfig } from '../../enhancer/qwen/config.js';
import { readQwenGguf } from '../../enhancer/qwen/qwen-gguf.js';
import { elementCount } from '../../std/element-count.js';
import { formatBytes } from '../../std/format-bytes.js';
import { formatParameters } from '../../std/format-parameters.js';
import { readJsonFile } from '../../std/json-file.js';
import { isGguf } from '../../weights/gguf/gguf-types.js';
import { readSplitGgufHeader } from '../../weights/gguf/split-gguf.js';
import { readWeightFiles } from '../../weights/weight-files.js';

export interface QwenInspection {
  readonly kind: 'language_model';
  readonly architecture: 'qwen2';
  readonly layout: 'transformers' | 'gguf';
  readonly parameters: number;
  readonly weightBytes: number;
  readonly blocks: number;
  /** In tokens. */
  readonly contextLength: number;
}

const configSchema = z.object({ architectures: z.array(z.string()) });
const CONFIG = { maxBytes: 1_000_000, missing: '' };

/**
 * Inspects a language model, a folder or a GGUF file, without its weights; undefined for anything else.
 * @throws InferenceError if the model cannot be used
 */
export async function inspectQwen(path: string): Promise<QwenInspection | undefined> {
  if (isGguf(path)) return inspectGguf(path);
  const isFolder = (await stat(path).catch(() => undefined))?.isDirectory() ?? false;
  if (!isFolder || !(await isLanguageModel(path))) return undefined;
  const { blockCount, contextLength } = await readQwenConfig(path);
  const { tensors } = await readWeightFiles(path, ['model']);
  return {
    ...summary([...tensors.values()]),
    layout: 'transformers',
    weightBytes: [...tensors.values()].reduce((sum, { length }) => sum + length, 0),
    blocks: blockCount,
    contextLength,
  };
}

async function isLanguageModel(folder: string): Promise<boolean> {
  const config = await readJsonFile(join(folder, 'config.json'), configSchema, CONFIG).catch(() => undefined);
  return config?.architectures.some((name) => name.endsWith('ForCausalLM') || name.startsWith('Qwen')) ?? false;
}

async function inspectGguf(path: string): Promise<QwenInspection | undefined> {
  const { metadata } = await readSplitGgufHeader(path);
  // Diffusion models in GGUF have no tokenizer.
  if (!metadata.has('tokenizer.ggml.model')) return undefined;
  const { tensors, fileBytes, ...header } = await readQwenGguf(path);
  return {
    ...summary([...tensors.values()]),
    layout: 'gguf',
    weightBytes: fileBytes,
    blocks: Number(header.metadata.get('qwen2.block_count')),
    contextLength: Number(header.metadata.get('qwen2.context_length')),
  };
}

function summary(
  tensors: readonly { readonly shape: readonly number[] }[],
): Pick<QwenInspection, 'kind' | 'architecture' | 'parameters'> {
  const parameters = tensors.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  return { kind: 'language_model', architecture: 'qwen2', parameters };
}

export function describeQwen(
  path: string,
  { layout, parameters, weightBytes, blocks, contextLength }: QwenInspection,
): string {
  return [
    `${path} is a Qwen2 language model ${layout === 'gguf' ? 'in GGUF' : "in transformers' layout"}.`,
    `  ${formatParameters(parameters)}, ${formatBytes(weightBytes, 2)}, ${blocks} blocks, a context of ${contextLength} tokens`,
    `  enhances prompts: darkroom serve --qwen ${path}`,
    '',
  ].join('\n');
}

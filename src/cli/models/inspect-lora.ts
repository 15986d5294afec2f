import { type LoraHeader, readLoraHeader, trainedTags } from '../../pipelines/lora/lora-header.js';
import { isLoraFile } from '../../pipelines/lora/lora-keys.js';
import { readSafetensors } from '../../weights/safetensors.js';

const MAX_TAGS = 20;
/** Number of unknown keys that are listed. */
const MAX_UNKNOWN_SHOWN = 8;

/** Inspects a LoRA file; undefined for anything else. @throws InferenceError if the LoRA cannot be used */
export async function inspectLora(path: string): Promise<LoraInspection | undefined> {
  if (!path.endsWith('.safetensors')) return undefined;
  const { tensors } = await readSafetensors(path);
  if (!isLoraFile([...tensors.keys()])) return undefined;
  const header = await readLoraHeader(path);
  const { base, format, rank, sizeBytes, unknown, metadata } = header;
  return {
    kind: 'lora',
    base,
    format,
    rank,
    sizeBytes,
    modules: moduleCounts(header),
    tags: trainedTags(header, MAX_TAGS),
    unknown,
    metadata,
  };
}

export interface LoraInspection
  extends Pick<LoraHeader, 'base' | 'format' | 'rank' | 'sizeBytes' | 'unknown' | 'metadata'> {
  readonly kind: 'lora';
  readonly modules: { readonly denoiser: number; readonly textEncoders: number };
  /** Captions of its training images, most frequent first. */
  readonly tags: readonly string[];
}

export function describeLora(
  path: string,
  { base, format, rank, sizeBytes, modules, tags, unknown }: LoraInspection,
): string {
  const rest = unknown.length > MAX_UNKNOWN_SHOWN ? ` and ${unknown.length - MAX_UNKNOWN_SHOWN} more` : '';
  return [
    `${path} is a LoRA for ${base}, in ${format === 'kohya' ? "kohya's" : "PEFT's"} names.`,
    `  rank ${rank}, ${modules.denoiser} weights of the denoiser, ${modules.textEncoders} of the text encoders, ${(sizeBytes / 1e6).toFixed(1)} MB`,
    ...(tags.length > 0 ? [`  trained on ${tags.join(', ')}`] : []),
    ...(unknown.length > 0 ? [`  not understood: ${unknown.slice(0, MAX_UNKNOWN_SHOWN).join(', ')}${rest}`] : []),
    '',
  ].join('\n');
}

function moduleCounts({ modules }: LoraHeader): LoraInspection['modules'] {
  const textEncoders = [...modules.keys()].filter((name) => /^(lora_te|text_encoder)/.test(name)).length;
  return { denoiser: modules.size - textEncoders, textEncoders };
}

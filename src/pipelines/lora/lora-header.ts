import { stat } from 'node:fs/promises';
import { InferenceError } from '../../errors.js';
import { readSafetensors, type TensorRecord } from '../../weights/safetensors.js';

export type LoraFormat = 'kohya' | 'peft';

/** Base model that a LoRA was trained on, found from its keys. */
export const loraBases = [
  'SDXL',
  'WAN 2.1',
  'Stable Diffusion 1 or 2',
  'Stable Diffusion 3',
  'Flux',
  'unknown',
] as const;
export type LoraBase = (typeof loraBases)[number];

export type LoraPart = 'down' | 'up' | 'alpha';

/** The header of a LoRA file; its numbers are not read. */
export interface LoraHeader {
  readonly path: string;
  /** The file itself, where the path is a link. */
  readonly file: string;
  readonly sizeBytes: number;
  readonly base: LoraBase;
  readonly format: LoraFormat;
  /** By the names that the file gives its modules. */
  readonly modules: ReadonlyMap<string, Readonly<Partial<Record<LoraPart, TensorRecord>>>>;
  /** The largest rank of its modules. */
  readonly rank: number;
  /** Keys that name no part of a LoRA. */
  readonly unknown: readonly string[];
  readonly metadata: Readonly<Record<string, string>>;
}

/** Key parts of other methods. The arithmetic of LoRA is wrong for their tensors. */
const OTHER_METHODS: readonly (readonly [pattern: RegExp, name: string])[] = [
  [/\.hada_w\d/, 'LoHa'],
  [/\.lokr_w\d/, 'LoKr'],
  [/\.(dora_scale|lora_magnitude_vector)/, 'DoRA'],
  [/\.(oft_blocks|oft_diag|oft_R)/, 'OFT'],
  [/\.lora_mid\./, 'LoCon with a core (Tucker)'],
  [/\.(on_input|w_norm|b_norm|diff|diff_b)$/, 'weights of another kind than LoRA'],
];

/** The first that some key fits. */
const BASES: readonly (readonly [pattern: RegExp, base: LoraBase])[] = [
  [/^lora_te_/, 'Stable Diffusion 1 or 2'],
  [/(double|single)_(transformer_)?blocks/, 'Flux'],
  [/joint_(transformer_)?blocks/, 'Stable Diffusion 3'],
  [/^lora_te[12]_|(input|output|down|up|mid|middle)_block/, 'SDXL'],
  [/(^|[._])blocks[._]\d+[._](self_attn|cross_attn|attn[12]|ffn)[._]/, 'WAN 2.1'],
];

/** True for keys of LoRAs and of other low-rank methods; checkpoints have none of them. */
export function isLoraKey(key: string): boolean {
  return /^lora_|\.lora[._]|\.(hada|lokr|dora|oft)_/.test(key);
}

/**
 * Reads the header of a LoRA file of kohya's scripts or of PEFT and diffusers, and of what it is made.
 * @throws InferenceError MODEL_UNSUPPORTED for another method, CHECKPOINT_INVALID for a file that is not whole
 */
export async function readLoraHeader(path: string): Promise<LoraHeader> {
  const { tensors, metadata, file } = await readSafetensors(path);
  const keys = [...tensors.keys()];
  const other = OTHER_METHODS.find(([pattern]) => keys.some((key) => pattern.test(key)));
  if (other !== undefined) {
    throw new InferenceError('MODEL_UNSUPPORTED', `${path} is ${other[1]}; darkroom takes LoRA`);
  }
  const modules = new Map<string, Partial<Record<LoraPart, TensorRecord>>>();
  const unknown: string[] = [];
  let format: LoraFormat = 'kohya';
  for (const [key, record] of tensors) {
    const found = parseKey(key);
    if (found === undefined) {
      unknown.push(key);
      continue;
    }
    format = found.format;
    modules.set(found.module, { ...modules.get(found.module), [found.part]: record });
  }
  if (modules.size === 0) {
    throw new InferenceError('MODEL_UNSUPPORTED', `${path} has no LoRA keys; it begins with "${keys[0] ?? ''}"`);
  }
  const rank = Math.max(...[...modules.values()].map(({ down }) => down?.shape[0] ?? 0));
  const base = BASES.find(([pattern]) => keys.some((key) => pattern.test(key)))?.[1] ?? 'unknown';
  return { path, file, sizeBytes: (await stat(file)).size, base, format, modules, rank, unknown, metadata };
}

function parseKey(key: string): { module: string; part: LoraPart; format: LoraFormat } | undefined {
  const kohya = /^(lora_(?:unet|te\d?)_.+)\.(?:lora_(down|up)\.weight|(alpha))$/.exec(key);
  if (kohya) return { module: kohya[1] ?? '', part: (kohya[2] ?? 'alpha') as LoraPart, format: 'kohya' };
  const peft =
    /^(?:base_model\.model\.)?(.+?)\.(?:lora_([AB])(?:\.default)?\.weight|lora(?:_linear_layer)?\.(down|up)\.weight|lora_(down|up)\.weight|(alpha))$/.exec(
      key,
    );
  if (peft === null) return undefined;
  const [, module = '', letter, named, plain] = peft;
  const part = letter === 'A' ? 'down' : letter === 'B' ? 'up' : (named ?? plain ?? 'alpha');
  return { module, part: part as LoraPart, format: 'peft' };
}

/** Words that the images it was trained on were described with, the most frequent first, as kohya's scripts count them. */
export function trainedTags({ metadata }: Pick<LoraHeader, 'metadata'>, most: number): readonly string[] {
  const counts = new Map<string, number>();
  try {
    const folders: unknown = JSON.parse(metadata.ss_tag_frequency ?? '{}');
    for (const tags of Object.values(folders ?? {})) {
      for (const [tag, count] of Object.entries(tags ?? {})) {
        counts.set(tag.trim(), (counts.get(tag.trim()) ?? 0) + (Number(count) || 0));
      }
    }
  } catch {
    // Some tools leave no JSON there: no tags are known then.
  }
  return [...counts]
    .sort(([, a], [, b]) => b - a)
    .slice(0, most)
    .map(([tag]) => tag);
}

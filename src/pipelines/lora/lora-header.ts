import { stat } from 'node:fs/promises';
import { InferenceError } from '../../errors.js';
import { parseBoundedJson } from '../../std/bounded-json.js';
import { readSafetensors, type TensorRecord } from '../../weights/safetensors.js';
import { type AdapterSettingsOf, readAdapterSettings } from './adapter-settings.js';
import { type LoraFormat, type LoraPart, parseLoraKey } from './lora-keys.js';

/** Base model that a LoRA was trained on, found from its keys. */
const loraBases = ['SDXL', 'WAN 2.1', 'Stable Diffusion 1 or 2', 'Stable Diffusion 3', 'Flux', 'unknown'] as const;
export type LoraBase = (typeof loraBases)[number];

/** Every weight of SDXL and WAN 14B together has fewer. */
const MAX_MODULES = 20_000;
/** A name out of a file that may be hostile, as messages show it. */
const MAX_SHOWN_CHARACTERS = 128;

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
  /** Settings that PEFT trained with, where the header has them. They take precedence over `alpha` tensors. */
  readonly settings: AdapterSettingsOf;
}

/** Key parts of other methods. The arithmetic of LoRA is wrong for their tensors. */
const OTHER_METHODS: readonly (readonly [pattern: RegExp, name: string])[] = [
  [/\.(oft_blocks|oft_diag|oft_R)/, 'OFT'],
  [/\.(on_input|set_weight|reshape_weight)$/, 'weights of another kind than LoRA'],
];

/** Factors whose first dimension is the rank. */
const RANKED = /^(?:down|hada_w1_b|lokr_w[12]_b)$/;

/** The first that some key fits. */
const BASES: readonly (readonly [pattern: RegExp, base: LoraBase])[] = [
  [/^lora_te_/, 'Stable Diffusion 1 or 2'],
  [/(double|single)_(transformer_)?blocks/, 'Flux'],
  [/joint_(transformer_)?blocks/, 'Stable Diffusion 3'],
  [/^lora_te[12]_|(input|output|down|up|mid|middle)_block/, 'SDXL'],
  [/(^|[._])blocks[._]\d+[._](self_attn|cross_attn|attn[12]|ffn)[._]/, 'WAN 2.1'],
];

/**
 * Reads the header of a LoRA file of kohya's scripts or of PEFT and diffusers, and of what it is made.
 * @throws InferenceError MODEL_UNSUPPORTED for another method, CHECKPOINT_INVALID for a file that is not whole
 */
export async function readLoraHeader(path: string): Promise<LoraHeader> {
  const { tensors, metadata, file } = await readSafetensors(path);
  const keys = [...tensors.keys()];
  const other = OTHER_METHODS.find(([pattern]) => keys.some((key) => pattern.test(key)));
  if (other !== undefined) {
    throw new InferenceError('MODEL_UNSUPPORTED', `${path} is ${other[1]}; darkroom takes LoRA, DoRA, LoHa and LoKr`);
  }
  const modules = new Map<string, Partial<Record<LoraPart, TensorRecord>>>();
  const unknown: string[] = [];
  let format: LoraFormat = 'kohya';
  let rank = 0;
  for (const [key, record] of tensors) {
    const found = parseLoraKey(key);
    if (found === undefined) {
      unknown.push(key);
      continue;
    }
    const { module, part } = found;
    if (found.format === 'peft') format = 'peft';
    if (RANKED.test(part)) rank = Math.max(rank, record.shape[0] ?? 0);
    const parts = modules.get(module) ?? {};
    const same = parts[part];
    if (same !== undefined) refuse(path, `has "${shown(key)}" beside "${shown(same.name)}"`);
    parts[part] = record;
    modules.set(module, parts);
    if (modules.size > MAX_MODULES) refuse(path, `has more than ${MAX_MODULES} modules, the limit`);
  }
  if (modules.size === 0) {
    throw new InferenceError('MODEL_UNSUPPORTED', `${path} has no LoRA keys; it begins with "${shown(keys[0] ?? '')}"`);
  }
  const settings = readAdapterSettings(path, metadata);
  const base = BASES.find(([pattern]) => keys.some((key) => pattern.test(key)))?.[1] ?? 'unknown';
  return { path, file, sizeBytes: (await stat(file)).size, base, format, modules, rank, unknown, metadata, settings };
}

function refuse(path: string, problem: string): never {
  throw new InferenceError('CHECKPOINT_INVALID', `${path} ${problem}`);
}

function shown(name: string): string {
  return name.slice(0, MAX_SHOWN_CHARACTERS);
}

/** A table of half a million captions has some 8 MB; a longer one is not looked into. */
const MAX_TAGS_CHARACTERS = 8_000_000;
const TAGS_BUDGET = { maxDepth: 3, maxValues: 500_000 };
/** Captions are words or sentences. */
const MAX_TAG_CHARACTERS = 200;

/** Words that the images it was trained on were described with, the most frequent first, as kohya's scripts count them. */
export function trainedTags({ metadata }: Pick<LoraHeader, 'metadata'>, most: number): readonly string[] {
  const text = metadata.ss_tag_frequency ?? '{}';
  const counts = new Map<string, number>();
  for (const tags of objectsIn(text.length > MAX_TAGS_CHARACTERS ? '{}' : text)) {
    for (const [tag, count] of Object.entries(tags)) {
      const word = tag.slice(0, MAX_TAG_CHARACTERS).trim();
      counts.set(word, (counts.get(word) ?? 0) + (typeof count === 'number' ? count : 0));
    }
  }
  return [...counts]
    .sort(([, a], [, b]) => b - a)
    .slice(0, most)
    .map(([tag]) => tag);
}

/** The objects in a JSON object. Some tools leave no JSON there: no tags are known then. */
function objectsIn(text: string): readonly object[] {
  try {
    const json = parseBoundedJson(text, TAGS_BUDGET);
    return Object.values(typeof json === 'object' && json !== null ? json : {}).filter(
      (value): value is object => typeof value === 'object' && value !== null,
    );
  } catch {
    return [];
  }
}

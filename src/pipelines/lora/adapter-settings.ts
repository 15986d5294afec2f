import { z } from 'zod';
import { InferenceError, listProblems } from '../../errors.js';
import { parseBoundedJson } from '../../std/bounded-json.js';
import { problemsOf } from '../../std/schema-problems.js';

/** Key in a safetensors header: JSON, the settings of each component under its name. diffusers 0.34 and later write it. */
const KEY = 'lora_adapter_metadata';
/** The settings of a LoRA that names every module have some 100 KB. */
const MAX_CHARACTERS = 4_000_000;
const MAX_PATTERNS = 20_000;

const COMPONENTS = ['unet', 'transformer', 'text_encoder', 'text_encoder_2'] as const;

const settingsSchema = z.object({
  lora_alpha: z.number().optional(),
  alpha_pattern: z.record(z.string(), z.number()).nullish(),
  use_rslora: z.boolean().nullish(),
});

/** Settings of one component, as PEFT's LoraConfig has them. Ranks follow from the factors' shapes. */
export interface AdapterSettings {
  readonly alpha: number;
  /** Alphas of single modules, by the end of the module's name. */
  readonly alphas: ReadonlyMap<string, PatternAlpha>;
  readonly isRankStabilised: boolean;
}

interface PatternAlpha {
  readonly alpha: number;
  /** Place in the list of patterns. */
  readonly order: number;
}

/** Settings by component; components without settings of their own are absent. */
export type AdapterSettingsOf = ReadonlyMap<string, AdapterSettings>;

/**
 * Reads the settings that PEFT trained with out of a file's header.
 * @throws InferenceError CHECKPOINT_INVALID for settings that are none
 */
export function readAdapterSettings(path: string, metadata: Readonly<Record<string, string>>): AdapterSettingsOf {
  const text = metadata[KEY];
  const found = new Map<string, AdapterSettings>();
  if (text === undefined) return found;
  const refuse = (problem: string): never => {
    throw new InferenceError('CHECKPOINT_INVALID', `${path} has ${KEY} in its header that ${problem}`);
  };
  if (text.length > MAX_CHARACTERS) refuse(`is ${text.length} characters long, the limit is ${MAX_CHARACTERS}`);
  const json = parseJson(text) ?? refuse('is not a JSON object');
  for (const component of COMPONENTS) {
    const own = Object.entries(json).filter(([key]) => key.startsWith(`${component}.`));
    if (own.length === 0) continue;
    const entries = Object.fromEntries(own.map(([key, value]) => [key.slice(component.length + 1), value]));
    const parsed = settingsSchema.safeParse(entries);
    if (!parsed.success) {
      const problems = problemsOf(parsed.error).map((problem) => `${component}.${problem}`);
      return refuse(`cannot be used:\n${listProblems(problems)}`);
    }
    const { lora_alpha, alpha_pattern, use_rslora } = parsed.data;
    const patterns = Object.entries(alpha_pattern ?? {});
    if (patterns.length > MAX_PATTERNS)
      refuse(`has ${patterns.length} alphas of modules, the limit is ${MAX_PATTERNS}`);
    const alphas = new Map(
      patterns.map(([pattern, alpha], order) => [
        moduleEnd(pattern) ?? refuse(`has the pattern "${pattern.slice(0, 128)}", which is not a module's name`),
        { alpha, order },
      ]),
    );
    // PEFT's own default.
    found.set(component, { alpha: lora_alpha ?? 8, alphas, isRankStabilised: use_rslora === true });
  }
  return found;
}

/**
 * Factor of up * down: alpha / rank, or alpha / sqrt(rank) where training was rank-stabilised (arXiv:2312.03732).
 * `update_layer` in
 * https://github.com/huggingface/peft/blob/003369494699fedd543fe38d16e52df96aeae743/src/peft/tuners/lora/layer.py
 * @param module as diffusers names it
 */
export function adapterScale(
  { alpha, alphas, isRankStabilised }: AdapterSettings,
  module: string,
  rank: number,
): number {
  return alphaOf(module, alphas, alpha) / (isRankStabilised ? Math.sqrt(rank) : rank);
}

/** PEFT takes the first pattern that the module's name ends with, at the beginning of a segment. */
function alphaOf(module: string, alphas: ReadonlyMap<string, PatternAlpha>, fallback: number): number {
  const segments = module.split('.');
  const ends = segments.map((_, i) => segments.slice(i).join('.'));
  const found = [`^${module}`, ...ends].flatMap((end) => alphas.get(end) ?? []);
  return found.sort((a, b) => a.order - b.order)[0]?.alpha ?? fallback;
}

/** PEFT's patterns are regular expressions. Those that diffusers writes are names, some with `^` before them. */
function moduleEnd(pattern: string): string | undefined {
  const name = pattern.replaceAll('\\.', '.');
  return /^\^?[\w.-]+$/.test(name) ? name : undefined;
}

function parseJson(text: string): Record<string, unknown> | undefined {
  try {
    const json = parseBoundedJson(text, { maxDepth: 8, maxValues: 200_000 });
    return typeof json === 'object' && json !== null && !Array.isArray(json)
      ? (json as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

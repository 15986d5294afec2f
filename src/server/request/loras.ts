import type { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import { type Lora, PromptSyntax } from '../../gen/darkroom/v1/job.js';
import type { AnyFamily } from '../../pipelines/family.js';
import type { RequestLora } from '../../pipelines/pipeline.js';
import { wellFormed } from '../../std/well-formed.js';
import type { AddOnRegistry } from './add-on-registry.js';
import type { Check } from './field-checks.js';
import { type LoraSign, takeLoraSigns } from './lora-signs.js';

const MAX_LORAS = 4;
const MAX_WEIGHT = 2;
/** Texts of a request without their LoRA signs, and all of its LoRAs. */
export interface NamedLoras {
  readonly prompt: string;
  readonly weights: string;
  readonly loras: readonly Lora[];
  /** Faults of signs, a sentence each. */
  readonly problems: readonly string[];
}

/** Removes the LoRA signs from the texts. With the `diffusers` syntax signs are text. */
export function takeLoras({ prompt, weights, loras, promptSyntax }: GenerateRequest): NamedLoras {
  if (promptSyntax === PromptSyntax.PROMPT_SYNTAX_DIFFUSERS) return { prompt, weights, loras, problems: [] };
  const signs = [takeLoraSigns(prompt), takeLoraSigns(weights)] as const;
  const named = signs.flatMap(({ signs: found }) => found).map(loraOf);
  return {
    prompt: signs[0].text,
    weights: signs[1].text,
    loras: [...loras, ...named.map(({ lora }) => lora)],
    problems: named.flatMap(({ problem }) => problem ?? []),
  };
}

/** The LoRA of a sign. The denoiser's weight is that of the text encoders unless the sign has its own, as in A1111. */
function loraOf({ name, parts }: LoraSign): { readonly lora: Lora; readonly problem?: string } {
  const [first, second, extra] = parts.filter((part) => !part.includes('='));
  const options = new Map(parts.filter((part) => part.includes('=')).map(optionOf));
  const common = weightOf(options.get('te') ?? first);
  const own = options.get('unet') ?? second;
  const weight = own === undefined ? common : weightOf(own);
  // A sign with one weight sets one field, so that a bad weight is reported once.
  const lora = { name, weight, textEncoderWeight: own === undefined ? undefined : common };
  const unknown = [...options.keys()].find((key) => key !== 'te' && key !== 'unet') ?? extra;
  if (unknown === undefined) return { lora };
  const [shown, which] = [wellFormed(name, 64), wellFormed(unknown, 32)];
  return { lora, problem: `<lora:${shown}:…> has "${which}", must have weights, te= or unet= alone; leave it out` };
}

function optionOf(part: string): readonly [string, string] {
  const at = part.indexOf('=');
  return [part.slice(0, at).trim().toLowerCase(), part.slice(at + 1)];
}

/** An empty weight is 1. `checkLoras` reports a weight that is no number. */
function weightOf(text: string | undefined): number {
  return text === undefined || text.trim() === '' ? 1 : Number(text);
}

export function checkLoras({ loras, problems }: Pick<NamedLoras, 'loras' | 'problems'>, check: Check): void {
  for (const problem of problems) check(false, 'prompt', problem);
  check(loras.length <= MAX_LORAS, 'loras', `loras has ${loras.length} entries, must have at most ${MAX_LORAS}`);
  const seen = new Set<string>();
  for (const [i, { name, weight, textEncoderWeight }] of loras.slice(0, MAX_LORAS).entries()) {
    const field = `loras[${i}]`;
    check(!seen.has(name), `${field}.name`, `${field}.name "${name.slice(0, 128)}" is there twice; add up its weights`);
    seen.add(name);
    for (const [which, value = 0] of Object.entries({ weight, text_encoder_weight: textEncoderWeight })) {
      const isInside = Math.abs(value) <= MAX_WEIGHT;
      check(isInside, `${field}.${which}`, `${field}.${which} ${value} must be >= -${MAX_WEIGHT} and <= ${MAX_WEIGHT}`);
    }
  }
}

/**
 * Finds the files of a request's LoRAs, which must be checked before.
 * @throws InferenceError LORA_NOT_FOUND, MODEL_UNSUPPORTED, or the fault of a file
 */
export function findLoras(
  loras: readonly Lora[],
  family: AnyFamily,
  registry: AddOnRegistry<'lora'>,
): readonly RequestLora[] {
  return loras.map(({ name, ...weights }) => {
    const { path, revision } = registry.get(name, family);
    return { name, path, revision, ...withDefaults(weights) };
  });
}

function withDefaults({ weight = 1, textEncoderWeight = weight }: Omit<Lora, 'name'>): {
  weight: number;
  textEncoderWeight: number;
} {
  return { weight, textEncoderWeight };
}

/** LoRAs in the API's form. */
export function loraMessages(loras: readonly RequestLora[] = []): Lora[] {
  return loras.map(({ name, weight, textEncoderWeight }) => ({ name, weight, textEncoderWeight }));
}

import type { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import { type Lora, PromptSyntax } from '../../gen/darkroom/v1/job.js';
import type { AnyFamily } from '../../pipelines/family.js';
import type { RequestLora } from '../../pipelines/pipeline.js';
import type { Check } from './field-checks.js';
import type { LoraRegistry } from './lora-registry.js';
import { takeLoraSigns } from './lora-signs.js';

const MAX_LORAS = 4;
const MAX_WEIGHT = 2;
/** Texts of a request without their LoRA signs, and all of its LoRAs. */
export interface NamedLoras {
  readonly prompt: string;
  readonly weights: string;
  readonly loras: readonly Lora[];
}

/** Removes the LoRA signs from the texts. With the `diffusers` syntax signs are text. */
export function takeLoras({ prompt, weights, loras, promptSyntax }: GenerateRequest): NamedLoras {
  if (promptSyntax === PromptSyntax.PROMPT_SYNTAX_DIFFUSERS) return { prompt, weights, loras };
  const signs = [takeLoraSigns(prompt), takeLoraSigns(weights)] as const;
  const named = signs
    .flatMap(({ signs: found }) => found)
    .map(({ name, parts: [first, second] }) => {
      const own = weightOf(first);
      return { name, weight: second === undefined ? own : weightOf(second), textEncoderWeight: own };
    });
  return { prompt: signs[0].text, weights: signs[1].text, loras: [...loras, ...named] };
}

/** An empty weight is 1. `checkLoras` reports a weight that is no number. */
function weightOf(text: string | undefined): number {
  return text === undefined || text.trim() === '' ? 1 : Number(text);
}

export function checkLoras(loras: readonly Lora[], check: Check): void {
  check(loras.length <= MAX_LORAS, 'loras', `loras has ${loras.length} entries, must have at most ${MAX_LORAS}`);
  const seen = new Set<string>();
  for (const [i, { name, ...weights }] of loras.slice(0, MAX_LORAS).entries()) {
    const field = `loras[${i}]`;
    check(!seen.has(name), `${field}.name`, `${field}.name "${name.slice(0, 128)}" is there twice; add up its weights`);
    seen.add(name);
    const { weight, textEncoderWeight } = withDefaults(weights);
    for (const [which, value] of Object.entries({ weight, text_encoder_weight: textEncoderWeight })) {
      const isInside = Math.abs(value) <= MAX_WEIGHT;
      check(isInside, `${field}.${which}`, `${field}.${which} ${value} must be >= -${MAX_WEIGHT} and <= ${MAX_WEIGHT}`);
    }
  }
}

/**
 * Finds the files of a request's LoRAs, which must be checked before.
 * @throws InferenceError LORA_NOT_FOUND, MODEL_UNSUPPORTED, or the fault of a file
 */
export function findLoras(loras: readonly Lora[], family: AnyFamily, registry: LoraRegistry): readonly RequestLora[] {
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

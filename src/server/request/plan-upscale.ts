import type { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import type { Upscale } from '../../gen/darkroom/v1/job.js';
import { type AnyFamily, titlesOf } from '../../pipelines/family.js';
import type { GenerationRequest, RequestUpscale } from '../../pipelines/pipeline.js';
import type { AddOnRegistry } from './add-on-registry.js';
import type { Check } from './field-checks.js';
import type { RequestContext } from './request-context.js';

const DEFAULT_FACTOR = 2;
const MAX_FACTOR = 4;
/** Latents that are enlarged are blurred, and show it unless enough is drawn again. */
const DEFAULT_LATENT_STRENGTH = 0.6;
const LATENT = 'latent';

/** A checked upscale of a request: its upscaler is not looked up. */
export interface PlannedUpscale extends Omit<RequestUpscale, 'method'> {
  readonly upscaler: string;
}

/** Checks the upscale of a request and fills in defaults. Undefined: the request has none. */
export function planUpscale(
  { upscale, mask }: Pick<GenerateRequest, 'upscale' | 'mask'>,
  { width, height, steps }: Pick<GenerationRequest, 'width' | 'height' | 'steps'>,
  { config, families, model: { family, info } }: RequestContext,
  check: Check,
): PlannedUpscale | undefined {
  if (upscale === undefined) return undefined;
  const takers = titlesOf(families, ({ takes }) => takes.upscale);
  check(family.takes.upscale, 'upscale', `upscale is for ${takers}; leave it out for ${family.title}`);
  if (!family.takes.upscale) return undefined;
  check(mask === undefined, 'upscale', 'upscale and mask exclude each other; enlarge the result in a second request');
  const { upscaler } = upscale;
  const { factor = DEFAULT_FACTOR, strength = upscaler === LATENT ? DEFAULT_LATENT_STRENGTH : 0 } = upscale;
  const isFactor = factor > 1 && factor <= MAX_FACTOR;
  check(isFactor, 'upscale.factor', `upscale.factor ${factor} must be > 1 and <= ${MAX_FACTOR}`);
  const { sizeMultiple } = info;
  const { LIMIT_SIDE_PIXELS: max, LIMIT_STEPS } = config;
  const side = (pixels: number) => Math.round((pixels * factor) / sizeMultiple) * sizeMultiple;
  const size = { width: side(width), height: side(height) };
  const isSize = size.width <= max && size.height <= max;
  check(
    !isFactor || isSize,
    'upscale.factor',
    `upscale.factor ${factor} makes ${size.width}x${size.height}, a side must be <= ${max}; use a smaller one or raise LIMIT_SIDE_PIXELS`,
  );
  const isStrength = strength >= 0 && strength <= 1;
  check(isStrength, 'upscale.strength', `upscale.strength ${strength} must be >= 0 and <= 1`);
  const isDrawn = upscaler !== LATENT || strength > 0;
  check(
    !isStrength || isDrawn,
    'upscale.strength',
    'upscale.strength must be above 0 with latent, whose images are blurred without',
  );
  const own = upscale.steps || steps;
  const isSteps = own <= LIMIT_STEPS;
  check(isSteps, 'upscale.steps', `upscale.steps ${own} must be <= ${LIMIT_STEPS}; lower it or raise LIMIT_STEPS`);
  const runs = Math.floor(own * strength);
  const ownSteps = upscale.steps ? 'upscale.steps' : 'steps';
  check(
    !isStrength || !isSteps || strength === 0 || runs >= 1,
    upscale.strength === undefined ? ownSteps : 'upscale.strength',
    `upscale.strength ${strength} runs none of ${own} steps; raise one of them`,
  );
  return { upscaler, factor, ...size, strength, steps: own };
}

/**
 * Finds the file of a request's upscaler.
 * @throws InferenceError UPSCALER_NOT_FOUND, or the fault of the file
 */
export function findUpscaler(
  planned: PlannedUpscale,
  family: AnyFamily,
  registry: AddOnRegistry<'upscaler'>,
): RequestUpscale {
  const { upscaler, ...rest } = planned;
  if (upscaler === '') return { ...rest, method: 'lanczos' };
  if (upscaler === LATENT) return { ...rest, method: LATENT };
  const { path, revision, summary } = registry.get(upscaler, family);
  return { ...rest, method: { name: upscaler, path, revision, bytes: summary?.bytes ?? 0 } };
}

/** True for an upscale that names a file. */
export function namesUpscaler(upscale: Upscale | undefined): boolean {
  return upscale !== undefined && upscale.upscaler !== '' && upscale.upscaler !== LATENT;
}

/** An upscale as the metadata of a job has it. */
export function upscaleMessage({ request }: { readonly request: GenerationRequest }): Upscale | undefined {
  const { upscale } = request;
  if (upscale === undefined) return undefined;
  const { method, factor, strength, steps } = upscale;
  const upscaler = typeof method === 'string' ? (method === LATENT ? LATENT : '') : method.name;
  return { upscaler, factor, strength, steps };
}

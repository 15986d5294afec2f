import type { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import { titlesOf } from '../../pipelines/family.js';
import type { SkipLayers } from '../../pipelines/pipeline.js';
import type { Check } from './field-checks.js';
import { checkRange } from './plan-range.js';
import type { RequestContext } from './request-context.js';

const FIELD = 'skip_layer_guidance';
/** More than any model has that is known. */
const MAX_LAYERS = 64;
const MAX_SCALE = 10;

/** Skip-layer guidance. @returns undefined if the request has none */
export function planSkipLayers(
  { skipLayerGuidance }: GenerateRequest,
  guidanceScale: number,
  { families, model: { family, info } }: RequestContext,
  check: Check,
): SkipLayers | undefined {
  if (skipLayerGuidance === undefined) return undefined;
  const takers = titlesOf(families, ({ takes }) => takes.skipLayers);
  check(family.takes.skipLayers, FIELD, `${FIELD} is for ${takers}; leave it out for ${family.title}`);
  if (!family.takes.skipLayers) return undefined;
  const { layers, scale } = skipLayerGuidance;
  const range = checkRange(FIELD, skipLayerGuidance, check);
  const isListed = layers.length >= 1 && layers.length <= MAX_LAYERS && new Set(layers).size === layers.length;
  check(isListed, `${FIELD}.layers`, `${FIELD}.layers must be 1 to ${MAX_LAYERS} blocks, each once`);
  const { layers: blocks = Number.POSITIVE_INFINITY } = info;
  const [unknown] = layers.filter((layer) => layer >= blocks);
  const bound = `must be <= ${blocks - 1}: the model has ${blocks} blocks, from 0`;
  check(unknown === undefined, `${FIELD}.layers`, `${FIELD}.layers ${unknown} ${bound}`);
  check(scale >= 0 && scale <= MAX_SCALE, `${FIELD}.scale`, `${FIELD}.scale ${scale} must be >= 0 and <= ${MAX_SCALE}`);
  check(
    scale !== 0 || guidanceScale > 1,
    `${FIELD}.scale`,
    `${FIELD}.scale 0 needs a guidance_scale above 1, because the unconditional half skips the blocks; raise guidance_scale ${guidanceScale} or set a scale`,
  );
  return { layers, ...range, scale };
}

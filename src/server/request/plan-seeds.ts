import { randomInt } from 'node:crypto';
import type { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import type { AnyFamily } from '../../pipelines/family.js';
import type { Check } from './field-checks.js';
import type { Preset } from './presets.js';

const MAX_DRAWN_SEED = 999_999_999;
const IMAGE_COUNTS: readonly number[] = [1, 3, 6];

/** One seed an image: the request's first one, or a random one from 1 to 999999999, and the numbers after it. */
export function planSeeds(
  request: GenerateRequest,
  makes: Preset['makes'],
  family: AnyFamily,
  check: Check,
): readonly number[] {
  const numImages = request.numImages || 1;
  check(
    makes === 'images' ? IMAGE_COUNTS.includes(numImages) : numImages === 1,
    'num_images',
    `num_images ${numImages} must be ${makes === 'images' ? '1, 3 or 6' : `1 for ${family.title}`}`,
  );
  const seed = request.seed === undefined ? randomInt(1, MAX_DRAWN_SEED + 1) : Number(request.seed);
  check(
    seed >= 0 && seed + numImages - 1 <= Number.MAX_SAFE_INTEGER,
    'seed',
    `seed ${request.seed} must be >= 0 and, with num_images added, <= ${Number.MAX_SAFE_INTEGER}`,
  );
  return Array.from({ length: numImages }, (_, k) => seed + k);
}

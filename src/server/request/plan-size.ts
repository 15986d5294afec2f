import type { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import { type Check, checkLimit } from './field-checks.js';
import type { RequestContext } from './request-context.js';

const MIN_SIDE_PIXELS = 64;

/** Width and height in pixels; the model's native size where the request has none. */
export function planSize(
  request: GenerateRequest,
  { config, model: { info } }: RequestContext,
  check: Check,
): { readonly width: number; readonly height: number } {
  const { nativeWidth, nativeHeight, sizeMultiple } = info;
  const max = config.LIMIT_SIDE_PIXELS;
  const side = (field: 'width' | 'height', native: number) => {
    const value = request[field] || native;
    // Models of toy size have native sizes below the bound.
    const min = Math.min(MIN_SIDE_PIXELS, native);
    checkLimit(field, value, { min, max, variable: 'LIMIT_SIDE_PIXELS' }, check);
    // A refused side is replaced, so that no field that depends on it is refused too.
    if (!(value >= min && value <= max)) return min;
    const below = value - (value % sizeMultiple);
    const remedy = `use ${below} or ${below + sizeMultiple}`;
    check(below === value, field, `${field} ${value} must be a multiple of ${sizeMultiple}; ${remedy}`);
    return value;
  };
  return { width: side('width', nativeWidth), height: side('height', nativeHeight) };
}

import type { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import { multipleProblem } from '../../pipelines/common/size-multiple.js';
import type { Check } from './field-checks.js';
import type { RequestContext } from './request-context.js';

const MIN_SIDE_PIXELS = 64;

/** Width and height in pixels; the model's native size where the request has none. */
export function planSize(
  request: GenerateRequest,
  { config, model: { family, info } }: RequestContext,
  check: Check,
): { readonly width: number; readonly height: number } {
  const { nativeWidth, nativeHeight, sizeMultiple } = info ?? family.defaults;
  const max = config.LIMIT_SIDE_PIXELS;
  const side = (field: 'width' | 'height', native: number) => {
    const value = request[field] || native;
    // Models of toy size have native sizes below the bound.
    const min = Math.min(MIN_SIDE_PIXELS, native);
    if (value < min || value > max) {
      check(false, field, `${field} ${value} must be >= ${min} and <= ${max}; change it or raise LIMIT_SIDE_PIXELS`);
    } else {
      const problem = multipleProblem(field, value, sizeMultiple);
      check(problem === undefined, field, problem ?? '');
    }
    return value;
  };
  return { width: side('width', nativeWidth), height: side('height', nativeHeight) };
}

import type { GenerationRequest, RequestUpscale } from '../pipeline.js';

/**
 * The request that draws an enlarged image again: image to image at the new size, from the same seeds. It is what a caller would send
 * who enlarged the image himself.
 */
export function secondRequest(
  request: GenerationRequest,
  { width, height, strength, steps }: RequestUpscale,
): GenerationRequest {
  return { ...request, upscale: undefined, width, height, steps, init: { rgb: new Uint8Array(), strength } };
}

/** The passes in which the images of a request are denoised, as requests: one, or two where they are enlarged and drawn again. */
export function passesOf(request: GenerationRequest): readonly [GenerationRequest, ...GenerationRequest[]] {
  const { upscale } = request;
  if (upscale === undefined) return [request];
  const first = { ...request, upscale: undefined };
  return upscale.strength === 0 ? [first] : [first, secondRequest(request, upscale)];
}

/** Size of the result, in pixels. */
export function resultSize({ width, height, upscale }: GenerationRequest): {
  readonly width: number;
  readonly height: number;
} {
  return { width: upscale?.width ?? width, height: upscale?.height ?? height };
}

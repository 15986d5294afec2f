import type { GenerationRequest, InitImage } from '../pipeline.js';

/** Images of a batch, however small they are: past this the device is busy anyway. */
const MAX_BATCH = 8;

/**
 * The first denoising step that is run: image to image leaves out those before `strength` of them are left.
 * https://github.com/huggingface/diffusers/blob/v0.35.1/src/diffusers/pipelines/stable_diffusion_xl/pipeline_stable_diffusion_xl_img2img.py#L676
 */
export function firstStep({
  steps,
  init,
}: Pick<GenerationRequest, 'steps'> & { readonly init?: Pick<InitImage, 'strength'> | undefined }): number {
  return init === undefined ? 0 : Math.max(0, steps - Math.floor(steps * init.strength));
}

/** Equal for requests whose images can share runs of the denoiser: one size, one schedule, the same LoRAs and ControlNets. */
export function batchKey(request: GenerationRequest): string {
  const { width, height, steps, scheduler, video, deepCacheInterval } = request;
  const size = [width, height, video?.frames, video?.shift, deepCacheInterval];
  const controls = (request.controls ?? []).map(({ name, revision }) => `${revision}:${name}`);
  return [...size, steps, scheduler, firstStep(request), variantKey(request), ...controls].join(' ');
}

/** The key of the variant that a request needs: the LoRAs that change something, in any order. The bare model: empty. */
export function variantKey({ loras = [] }: Pick<GenerationRequest, 'loras'>): string {
  return loras
    .filter(({ weight, textEncoderWeight }) => weight !== 0 || textEncoderWeight !== 0)
    .map(({ name, revision, weight, textEncoderWeight }) => [name, revision, weight, textEncoderWeight].join(':'))
    .sort()
    .join(', ');
}

/** Images of a request's size that are denoised together. */
export function batchLimit(
  { width, height }: Pick<GenerationRequest, 'width' | 'height'>,
  batchPixels: number,
): number {
  return Math.min(MAX_BATCH, Math.max(1, Math.floor(batchPixels / (width * height))));
}

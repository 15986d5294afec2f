import { join32, split32 } from '../../std/concat-float32.js';
import { groupBy } from '../../std/group-by.js';
import { reusesDeep } from '../common/guidance.js';
import type { GenerationRequest } from '../pipeline.js';
import { batchImageTokens } from './control/image-prompts.js';
import { batchControls } from './control/job-controls.js';
import type { ImageLatents } from './image-latents.js';
import type { SdxlNetworks } from './networks.js';

/**
 * Runs the UNet over the text rows of all images. Images whose text has another number of tokens go into a run of their own.
 * @param options `signal` ends a run, omitted, nothing does; `maxRows`: most rows of a run, omitted, all of them
 * @returns the noise of each image, [rows, 4, h, w], the negative prompt's first
 */
export async function predictBatch(
  { denoiser, autoencoder }: SdxlNetworks,
  images: readonly ImageLatents[],
  step: number,
  { signal, maxRows = Number.POSITIVE_INFINITY }: { readonly signal?: AbortSignal; readonly maxRows?: number } = {},
): Promise<ReadonlyMap<ImageLatents, Float32Array>> {
  const noise = new Map<ImageLatents, Float32Array>();
  for (const group of groupBy(images, ({ conditioning }) => conditioning.rows[0]?.tokens).values()) {
    const [first] = group as [ImageLatents, ...ImageLatents[]];
    const rows = group.flatMap((image) => image.conditioning.rows.map((row, place) => ({ image, row, place })));
    const outputs: Float32Array[] = [];
    const kept: Float32Array[] = [];
    const isShallow = isReused(first, step);
    for (let at = 0; at < rows.length; at += maxRows) {
      const part = rows.slice(at, at + maxRows);
      const predicted = await denoiser.predictNoise({
        ...autoencoder.latentSize(first.request),
        latents: join32(part.map(({ image }) => image.modelInput(step))),
        maskChannels: first.maskChannels && join32(part.map(({ image }) => image.maskChannels ?? new Float32Array())),
        timestep: first.timestep(step),
        context: join32(part.map(({ row }) => row.embeds)),
        pooled: join32(part.map(({ row }) => row.pooled)),
        timeIds: part.map(({ image }) => sizeIds(image.request)),
        controls: batchControls(
          part.map(({ image }) => ({
            controls: image.controls,
            call: step - image.start,
            calls: image.calls - image.start,
          })),
        ),
        imageTokens: batchImageTokens(
          part.map(({ image, place }) => ({
            imagePrompt: image.imagePrompt,
            // Of two rows the negative prompt's is the first.
            isNegative: image.conditioning.rows.length > 1 && place === 0,
          })),
        ),
        signal,
        deep: isShallow ? join32(part.map(({ image, place }) => image.deep[place] as Float32Array)) : undefined,
        keepsDeep: isReused(first, step + 1),
      });
      outputs.push(predicted.noise);
      if (predicted.deep !== undefined) kept.push(...split32(predicted.deep, predicted.deep.length / part.length));
    }
    const output = outputs.length === 1 ? (outputs[0] as Float32Array) : join32(outputs);
    let offset = 0;
    for (const image of group) {
      const end = offset + (output.length / rows.length) * image.conditioning.rows.length;
      noise.set(image, output.subarray(offset, end));
      offset = end;
      if (!isShallow) image.deep = kept.splice(0, image.conditioning.rows.length);
    }
  }
  return noise;
}

/** True for a call that leaves out what is below the UNet's first block. */
function isReused({ request, start, calls }: ImageLatents, call: number): boolean {
  return call < calls && reusesDeep(request, call - start);
}

/** Original size, top left of the crop, target size: height before width. */
function sizeIds({ width, height }: GenerationRequest): readonly number[] {
  return [height, width, 0, 0, height, width];
}

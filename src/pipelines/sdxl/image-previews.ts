import { groupBy } from '../../std/group-by.js';
import { cleanLatents } from '../common/clean-latents.js';
import { PreviewClock, previewFromLatents } from '../common/preview.js';
import type { PipelineEvent } from '../pipeline.js';
import type { ImageLatents } from './image-latents.js';
import { sdxlColours } from './latent-colours.js';
import type { SdxlNetworks } from './networks.js';

/** Previews of a batch: one image of each job, at the rate that its request asks for. */
export class ImagePreviews {
  readonly #networks: SdxlNetworks;
  readonly #clocks: ReadonlyMap<number, PreviewClock>;

  constructor(networks: SdxlNetworks, batch: readonly ImageLatents[]) {
    this.#networks = networks;
    this.#clocks = new Map(batch.map(({ job, request }) => [job, new PreviewClock(request.previewsPerSecond ?? 0)]));
  }

  /**
   * The previews that are due, by job. Taken before the scheduler's step: the clean image follows from the latents that the UNet
   * saw. The last step has none, as the image itself comes next.
   * @param noise guided, of each image
   */
  due(
    images: readonly ImageLatents[],
    noise: ReadonlyMap<ImageLatents, Float32Array>,
    step: number,
  ): ReadonlyMap<number, PipelineEvent> {
    const previews = new Map<number, PipelineEvent>();
    for (const [job, [image]] of groupBy(images, (each) => each.job)) {
      const output = image && noise.get(image);
      if (image === undefined || output === undefined || step === image.calls - 1) continue;
      if (!this.#clocks.get(job)?.isDue(performance.now())) continue;
      const { autoencoder } = this.#networks;
      const clean = cleanLatents(image.sample(step), output);
      const preview = previewFromLatents(clean, autoencoder.latentSize(image.request), sdxlColours);
      previews.set(job, { job, kind: 'preview', index: image.index, ...preview });
    }
    return previews;
  }
}

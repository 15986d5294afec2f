import { cleanLatents } from '../common/clean-latents.js';
import { type LatentColours, PreviewClock, previewFromLatents } from '../common/preview.js';
import type { GenerationRequest, PipelineEvent } from '../pipeline.js';
import { wanColours } from './latent-colours.js';
import type { VideoSize } from './model/latents.js';

/** Previews of one video: its middle frame, which shows more of it than the first one, at the rate that the request asks for. */
export class VideoPreviews {
  readonly #job: number;
  readonly #steps: number;
  readonly #clock: PreviewClock;
  readonly #size: VideoSize;
  readonly #frame: number;
  readonly #colours: LatentColours;

  /**
   * @param size of the loop's latents
   * @param leading latents that stand before the video's own
   * @param channels of the latents
   */
  constructor(job: number, request: GenerationRequest, size: VideoSize, leading: number, channels: number) {
    this.#colours = wanColours(channels);
    this.#job = job;
    this.#steps = request.steps;
    this.#clock = new PreviewClock(request.previewsPerSecond ?? 0);
    this.#size = size;
    this.#frame = leading + ((size.frames - leading) >> 1);
  }

  /**
   * The preview that is due at a step, from the latents before it. The last step has none, as the video itself comes next.
   * @param flow velocity from latents to noise: x = (1 - sigma) x0 + sigma noise, and the velocity is noise - x0
   */
  due(step: number, latents: Float32Array, flow: Float32Array, sigma: number): readonly PipelineEvent[] {
    if (step === this.#steps - 1 || !this.#clock.isDue(performance.now())) return [];
    const clean = cleanLatents({ input: latents, sigma, prediction: 'flow' }, flow);
    const preview = previewFromLatents(clean, this.#size, this.#colours, this.#frame);
    return [{ job: this.#job, kind: 'preview', index: 0, ...preview }];
  }
}

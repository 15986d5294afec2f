import type { Feed } from '../../../runtime/session.js';
import { join32 } from '../../../std/concat-float32.js';
import type { TransformerConfig } from '../model/config.js';
import { referenceFeeds } from '../model/reference-frame.js';

/** Known frames of a video as the transformer takes them, the same for all of a batch. */
export type Condition = VaceControl | KnownLatents | CleanFrames;

export interface VaceControl {
  readonly kind: 'vace';
  /** [96, F, h, w] */
  readonly control: Float32Array;
  /** Factor of the control's hints. The reference's default is 1. */
  readonly scale: number;
}

export interface KnownLatents {
  readonly kind: 'image';
  /**
   * More channels of the latents: masks and latents of the known frames, [20, F, h, w]; of Fun-Control the latents of the control video and
   * of the first frame, [32, F, h, w].
   */
  readonly channels: Float32Array;
  /** The image encoder's states of the known frames, [I, image_dim]; undefined for a model that takes no images. */
  readonly images: Float32Array | undefined;
  /** Latents of an image that the video is to look like, [16, h, w]. Of Fun-Control V1.1; omitted: none is given. */
  readonly reference?: Float32Array | undefined;
}

/** Latents that stand in the video as they are, without noise, at a timestep of 0. */
export interface CleanFrames {
  readonly kind: 'clean';
  /** Number of them, from the first on. */
  readonly count: number;
}

/** Latents [B, 16, F, h, w] as the transformer takes them: with the channels of what is known behind each. */
export function withChannels(latents: Float32Array, batch: number, channels: Float32Array | undefined): Float32Array {
  if (channels === undefined) return latents;
  const each = latents.length / batch;
  return join32(Array.from({ length: batch }, (_, i) => [latents.subarray(i * each, (i + 1) * each), channels]).flat());
}

/** The transformer's inputs beside latents, timestep and text. `shape`: frames, height and width in latents. */
export function conditionFeeds(
  condition: Condition | undefined,
  batch: number,
  shape: readonly number[],
  config: TransformerConfig,
): Readonly<Record<string, Feed>> {
  if (condition === undefined || condition.kind === 'clean') return {};
  if (condition.kind === 'vace') {
    return {
      control: { data: condition.control, shape: [1, config.vace_in_channels, ...shape] },
      control_scale: { data: Float32Array.of(condition.scale), shape: [1] },
    };
  }
  const { images, reference } = condition;
  const [frames = 0, height = 0, width = 0] = shape;
  const feeds = config.add_ref_conv
    ? referenceFeeds(reference, config.out_channels ?? config.in_channels, { frames, height, width })
    : {};
  if (images === undefined || config.image_dim == null) return feeds;
  const data = join32(Array.from({ length: batch }, () => images));
  return { ...feeds, images: { data, shape: [batch, images.length / config.image_dim, config.image_dim] } };
}

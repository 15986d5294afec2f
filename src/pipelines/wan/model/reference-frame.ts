import type { Graph, Value } from '../../../graph/graph.js';
import { add, mul } from '../../../graph/ops.js';
import { patchEmbedding } from '../../../graph/ops-3d.js';
import type { Shape } from '../../../graph/shape.js';
import type { Scope } from '../../../graph/weights.js';
import type { Feed } from '../../../runtime/session.js';
import { join32, split32 } from '../../../std/concat-float32.js';
import type { VideoSize } from './latents.js';

/**
 * Puts the patches of Fun-Control V1.1's reference image in the place of a video's first frame, whose own are of no use: the caller gives
 * one frame more than the video has, and cuts it off. Inputs: `reference` [1, C, F, 2h, 2w], the image's latents in the first frame and
 * zeros behind; `own` [F*h*w, 1], 0 for the patches of the first frame and 1 for the others.
 *
 * patches: [B, F*h*w, D] -> the same
 *
 * https://github.com/aigc-apps/VideoX-Fun/blob/804a4258e2608f855ccaec8fffa279e75a3b89c6/videox_fun/models/wan_transformer3d.py#L923
 */
export function withReferencePatches(graph: Graph, w: Scope, patches: Value, channels: number, grid: Shape): Value {
  const [, tokens = 0, width = 0] = patches.shape;
  const reference = graph.input('reference', 'f32', [1, channels, 'F', '2h', '2w']);
  const own = graph.input('own', 'f32', [tokens, 1]);
  const one = graph.constant(Float32Array.of(1), [1], 'f32');
  const other = graph.node('Sub', [one, own], own.shape);
  const seen = patchEmbedding(w, reference, Number(width), 2, grid, { isFlat: true });
  return add(graph, mul(graph, patches, own), mul(graph, seen, other));
}

/**
 * The inputs of `withReferencePatches`.
 * @param latents of the image, [C, h, w]. Undefined: zeros, as the reference has it without one
 * @param size of the video in latents, with the frame before it
 */
export function referenceFeeds(
  latents: Float32Array | undefined,
  channels: number,
  { frames, height, width }: VideoSize,
): Readonly<Record<'reference' | 'own', Feed>> {
  const plane = height * width;
  const reference = new Float32Array(channels * frames * plane);
  for (let channel = 0; latents !== undefined && channel < channels; channel += 1)
    reference.set(latents.subarray(channel * plane, (channel + 1) * plane), channel * frames * plane);
  const patches = plane / 4;
  const own = new Float32Array(frames * patches).fill(1, patches);
  return {
    reference: { data: reference, shape: [1, channels, frames, height, width] },
    own: { data: own, shape: [own.length, 1] },
  };
}

/** Videos [B, C, F, h, w] with a frame of zeros before each, [B, C, 1 + F, h, w]. @param size of the video in latents */
export function withFrameBefore(videos: Float32Array, { frames, height, width }: VideoSize): Float32Array {
  const plane = height * width;
  return join32(split32(videos, frames * plane).flatMap((channel) => [new Float32Array(plane), channel]));
}

/** The same without it. @param size of the video in latents, with the frame before it */
export function withoutFrameBefore(videos: Float32Array, { frames, height, width }: VideoSize): Float32Array {
  const plane = height * width;
  return join32(split32(videos, frames * plane).map((channel) => channel.subarray(plane)));
}

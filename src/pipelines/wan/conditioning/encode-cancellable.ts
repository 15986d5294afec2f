import type { RunningJobs } from '../../common/running-jobs.js';
import type { PipelineEvent } from '../../pipeline.js';
import { normalizedLatents, type VideoSize } from '../model/latents.js';
import type { ConditionNetworks, Frames } from './condition-networks.js';

/**
 * Encodes a video to latents, [16, h, w] each, as the transformer takes them. All frames of a video take many runs; the job can
 * be cancelled between them.
 *
 * @param size of a frame in pixels
 * @returns undefined when the job ended meanwhile
 */
export async function* encodeCancellable(
  job: number,
  running: RunningJobs,
  { autoencoder, config: { vae } }: Pick<ConditionNetworks, 'autoencoder' | 'config'>,
  frames: Frames,
  size: Omit<VideoSize, 'frames'>,
): AsyncGenerator<PipelineEvent, readonly Float32Array[] | undefined, undefined> {
  const latents: Float32Array[] = [];
  // Leaving the loop early releases the tensors that the encoder carries from chunk to chunk.
  for await (const mean of autoencoder.encodeChunks(frames, size, running.signalOf(job))) {
    yield* running.checkCancelled();
    if (!running.isAlive(job)) return undefined;
    latents.push(normalizedLatents(mean, vae));
  }
  return latents;
}

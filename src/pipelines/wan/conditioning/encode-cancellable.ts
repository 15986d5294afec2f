import type { RunningJobs } from '../../common/running-jobs.js';
import type { PipelineEvent } from '../../pipeline.js';
import { normalizedLatents } from '../model/latents.js';
import type { ClipSize, WanNetworks } from '../networks.js';

/**
 * The latents of a clip, [16, h, w] each, as the transformer takes them. Encoding all frames of a clip takes many runs: between
 * them the job's signal is looked at.
 *
 * @param size of a frame in pixels
 * @returns undefined when the job ended meanwhile
 */
export async function* watchedEncode(
  job: number,
  running: RunningJobs,
  networks: WanNetworks,
  frames: Iterable<Float32Array>,
  size: Omit<ClipSize, 'frames'>,
): AsyncGenerator<PipelineEvent, readonly Float32Array[] | undefined, undefined> {
  const { vae } = networks.config;
  const latents: Float32Array[] = [];
  // Leaving the loop early gives back what the encoder holds.
  for await (const mean of networks.encodeChunks(frames, size)) {
    yield* running.look();
    if (!running.isAlive(job)) return undefined;
    latents.push(normalizedLatents(mean, vae));
  }
  return latents;
}

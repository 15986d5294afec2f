import { batchLimit } from '../../pipelines/common/batching.js';
import { isEverGuided } from '../../pipelines/common/guidance.js';
import { type ModelMemory, memoryAt, type Residence, sumMemory } from '../../pipelines/model-memory.js';
import type { GenerationRequest } from '../../pipelines/pipeline.js';

/** Memory of the device, in bytes. */
export interface DeviceMemoryOfJob {
  /** Weights that are open between jobs. */
  readonly weightBytes: number;
  /** Most that the model takes while the job runs. */
  readonly peakBytes: number;
}

/**
 * What a model takes on its device for a job, from what its engine computed at load: every open session keeps its peak, and the
 * largest network that is opened in turn comes on top.
 * @param batchPixels largest number of pixels that are denoised together
 */
export function deviceMemoryOf(
  memory: ModelMemory,
  request: GenerationRequest,
  { hasReferences, batchPixels }: { readonly hasReferences: boolean; readonly batchPixels: number },
): DeviceMemoryOfJob {
  const { width, height, seeds, video } = request;
  const images = Math.min(seeds.length, batchLimit(request, batchPixels));
  const rows = images * (isEverGuided(request) ? 2 : 1);
  const networks = memoryAt(memory, { width, height, frames: video?.frames ?? 1, rows });
  const opened: Residence[] = [
    ...(hasReferences ? (['reference'] as const) : []),
    ...(video?.reuseThreshold ? (['reuse'] as const) : []),
  ];
  const { rest, largestInTurn } = sumMemory(networks, opened);
  return { weightBytes: sumMemory(networks).weights, peakBytes: rest + largestInTurn };
}

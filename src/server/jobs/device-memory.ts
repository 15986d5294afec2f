import type { JobsMemory } from '../../engine/device-ledgers.js';
import { batchLimit } from '../../pipelines/common/batching.js';
import { mostRows } from '../../pipelines/common/guidance.js';
import { passesOf } from '../../pipelines/common/passes.js';
import {
  type ModelMemory,
  memoryAt,
  type PlannedNetwork,
  type Residence,
  type RunSize,
  sumMemory,
} from '../../pipelines/model-memory.js';
import type { GenerationRequest } from '../../pipelines/pipeline.js';
import type { GenerateJob } from './generate-job.js';

/**
 * What a model takes on its device for a job, from what its engine computed at load: every open session keeps its peak, and the
 * largest network that is opened in turn comes on top.
 */
export function deviceMemoryOf(memory: ModelMemory, request: GenerationRequest, options: MemoryOptions): JobsMemory {
  const [first, second] = passesOf(request);
  const own = passMemory(memory, first, options);
  const { upscale } = request;
  const beside = upscale === undefined || typeof upscale.method === 'string' ? 0 : upscale.method.bytes;
  // The encoder reads the enlarged image, as it reads references.
  const later = second && passMemory(memory, second, { ...options, hasReferences: true });
  return {
    weightBytes: own.weightBytes,
    restBytes: beside + Math.max(own.restBytes, later?.restBytes ?? 0),
    peakBytes: beside + Math.max(own.peakBytes, later?.peakBytes ?? 0),
    leastBytes: beside + Math.max(own.leastBytes, later?.leastBytes ?? 0),
  };
}

/** What a job takes on the device above the weights that are open between jobs. Undefined while the model has not reported it. */
export function growthOf(
  memory: ModelMemory | undefined,
  request: GenerationRequest,
  batchPixels: number,
): number | undefined {
  if (memory === undefined) return undefined;
  const { peakBytes, weightBytes } = deviceMemoryOf(memory, request, { hasReferences: false, batchPixels });
  return peakBytes - weightBytes;
}

interface MemoryOptions {
  readonly hasReferences: boolean;
  /** Largest number of pixels that are denoised together. */
  readonly batchPixels: number;
}

function passMemory(
  memory: ModelMemory,
  request: GenerationRequest,
  { hasReferences, batchPixels }: MemoryOptions,
): JobsMemory {
  const { width, height, seeds, video } = request;
  const images = Math.min(seeds.length, batchLimit(request, batchPixels));
  const rows = images * mostRows(request);
  const networks = memoryAt(memory, { width, height, frames: video?.frames ?? 1, rows });
  const opened: Residence[] = [
    ...(hasReferences ? (['reference'] as const) : []),
    ...(video?.reuseThreshold || request.deepCacheInterval !== undefined ? (['reuse'] as const) : []),
  ];
  const { rest, largestInTurn } = sumMemory(networks, opened);
  const smallest = smallestParts(memory, { width, height, frames: video?.frames ?? 1, rows: 1 });
  const least = sumMemory(smallest, opened);
  const restBytes = rest + controlBytes(request, networks);
  return {
    weightBytes: sumMemory(networks).weights,
    restBytes,
    peakBytes: restBytes + largestInTurn,
    leastBytes: least.rest + least.largestInTurn + controlBytes(request, smallest),
  };
}

/** What ControlNets take at most: their weights, and runs that are no larger than the denoiser's, whose way down and middle they have. */
function controlBytes({ controls = [] }: GenerationRequest, networks: readonly PlannedNetwork[]): number {
  const [denoiser] = [...networks].sort((a, b) => b.weightBytes - a.weightBytes);
  if (denoiser === undefined) return 0;
  const bytes = denoiser.precision === 'fp32' ? 4 : 2;
  const nets = new Map(controls.map(({ revision, name, parameters }) => [`${revision} ${name}`, parameters]));
  return [...nets.values()].reduce((sum, parameters) => sum + bytes * parameters + denoiser.peakBytes, 0);
}

/** The smallest tile that decoders work in, in pixels: see tiles.ts. */
const SMALLEST_TILE = 128;

/** One row at a time, and decoders in the smallest tiles or parts: what is left when memory ran out. */
function smallestParts(memory: ModelMemory, run: RunSize): readonly PlannedNetwork[] {
  const tile = { ...run, width: Math.min(run.width, SMALLEST_TILE), height: Math.min(run.height, SMALLEST_TILE) };
  const tiled = memoryAt(memory, tile);
  return memoryAt(memory, run, true).map((network, i) =>
    network.network === 'vae_decoder' ? (tiled[i] as PlannedNetwork) : network,
  );
}

/**
 * The requests of jobs that run together, each with the seeds of all: what is computed for one of them holds for its passes with the
 * others' images. Their passes differ: one may be guided, another enlarged.
 */
export function requestsTogether(jobs: readonly GenerateJob[]): readonly GenerationRequest[] {
  const seeds = jobs.flatMap(({ request }) => request.seeds);
  return jobs.map(({ request }) => ({ ...request, seeds }));
}

/** The same of jobs that run together. Undefined while the model has not reported what its networks take. */
export function memoryOfJobs(
  memory: ModelMemory | undefined,
  jobs: readonly GenerateJob[],
  batchPixels: number,
): JobsMemory | undefined {
  if (memory === undefined || jobs.length === 0) return undefined;
  const hasReferences = jobs.some(
    ({ plan, request }) =>
      plan.references !== undefined || plan.controlVideo !== undefined || request.init !== undefined,
  );
  return requestsTogether(jobs)
    .map((request) => deviceMemoryOf(memory, request, { hasReferences, batchPixels }))
    .reduce(larger);
}

function larger(one: JobsMemory, other: JobsMemory): JobsMemory {
  return {
    weightBytes: Math.max(one.weightBytes, other.weightBytes),
    restBytes: Math.max(one.restBytes, other.restBytes),
    peakBytes: Math.max(one.peakBytes, other.peakBytes),
    leastBytes: Math.max(one.leastBytes, other.leastBytes),
  };
}

import type { Config } from '../config/server-config.js';
import { isCuda, type Precision, type Provider } from '../device.js';
import { batchLimit } from '../pipelines/common/batching.js';
import type { AnyFamily } from '../pipelines/family.js';
import { type PlannedNetwork, type RunSize, sumMemory } from '../pipelines/model-memory.js';
import { expectedDialects } from '../runtime/precision.js';

export interface PlannedModel {
  /** For example "WAN 2.1 text-to-video". */
  readonly title: string;
  /** Name of its family in messages. */
  readonly family: string;
  /** The run that is planned: the native size, and as many images as are denoised together. */
  readonly run: RunSize;
  readonly networks: readonly PlannedNetwork[];
}

/** The device that a model is planned for. */
export interface PlannedDevice {
  readonly provider: Provider;
  /** Omitted: PRECISION. */
  readonly precision?: Precision | undefined;
  /** Omitted: not known. */
  readonly memoryBytes?: number | undefined;
}

/**
 * Plans the memory of a configured model from its checkpoint, without loading it.
 * @returns undefined if the configuration names no such model, or the family has no networks
 * @throws InferenceError CHECKPOINT_INVALID for a checkpoint that is not whole
 */
export async function planModel(
  family: AnyFamily,
  config: Config,
  { provider, precision = config.PRECISION, memoryBytes }: PlannedDevice,
): Promise<PlannedModel | undefined> {
  const source = family.sourceFrom(config);
  if (source === undefined || family.planMemory === undefined) return undefined;
  const { title, info } = await family.inspect(source);
  const { nativeWidth: width, nativeHeight: height } = info;
  const images = family.isBatched ? batchLimit({ width, height }, config.BATCH_PIXELS) : 1;
  const frames = info.clip?.frames ?? 1;
  const run = { width, height, frames, rows: 2 * images };
  const cardBytes = isCuda(provider) ? memoryBytes : undefined;
  const networks = await family.planMemory(source, expectedDialects(provider, precision), run, cardBytes);
  return { title, family: family.title, run, networks };
}

/** The most that a job of the planned size takes which has no reference and reuses no steps, in bytes. */
export function plannedBytes({ networks }: PlannedModel): number {
  const { rest, largestInTurn } = sumMemory(networks);
  return rest + largestInTurn;
}

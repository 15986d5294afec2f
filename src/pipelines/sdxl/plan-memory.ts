import type { Backend } from '../../runtime/backend.js';
import { planNetworks } from '../common/plan-memory.js';
import type { PlannedNetwork, RunSize } from '../model-memory.js';
import { openSdxlCheckpoint, type SdxlSource } from './checkpoint/checkpoint.js';
import { buildSdxlNetworks } from './weights.js';

/** @throws InferenceError CHECKPOINT_INVALID that lists every problem of the checkpoint */
export async function planSdxlMemory(
  source: SdxlSource,
  dialectsOf: Backend['dialectsOf'],
  run: RunSize,
): Promise<readonly PlannedNetwork[]> {
  const checkpoint = await openSdxlCheckpoint(source);
  return planNetworks(Object.values(await buildSdxlNetworks(checkpoint, dialectsOf)), run);
}

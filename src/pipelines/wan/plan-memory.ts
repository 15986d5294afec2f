import type { Backend } from '../../runtime/backend.js';
import type { Network } from '../common/build-networks.js';
import { modelMemory, planNetworks } from '../common/plan-memory.js';
import type { ModelMemory, NetworkMemory, PlannedNetwork, RunSize } from '../model-memory.js';
import { openWanCheckpoint, type WanSource } from './checkpoint/checkpoint.js';
import type { WanConfig } from './model/config.js';
import { trainedVideo } from './trained-video.js';
import { buildWanNetworks } from './weights.js';

/** @throws InferenceError CHECKPOINT_INVALID that lists every problem of the checkpoint */
export async function planWanMemory(
  source: WanSource,
  dialectsOf: Backend['dialectsOf'],
  run: RunSize,
  cardBytes?: number,
): Promise<readonly PlannedNetwork[]> {
  const checkpoint = await openWanCheckpoint(source);
  const networks = Object.values(await buildWanNetworks(checkpoint, dialectsOf, { cardBytes }));
  return kept(planNetworks(networks, run), source);
}

/** The same of opened networks, for every size. */
export function wanMemory(
  networks: readonly Network[],
  { transformer }: Pick<WanConfig, 'transformer'>,
  source: Pick<WanSource, 'keepsTextEncoder'>,
): ModelMemory {
  const memory = modelMemory(networks, trainedVideo(transformer));
  return { ...memory, networks: kept(memory.networks, source) };
}

/** The text encoder stays open where the operator wants it to. */
function kept<T extends PlannedNetwork | NetworkMemory>(
  planned: readonly T[],
  { keepsTextEncoder = false }: Pick<WanSource, 'keepsTextEncoder'>,
): readonly T[] {
  if (!keepsTextEncoder) return planned;
  return planned.map((each) => (each.network === 'text_encoder' ? { ...each, residence: 'always' } : each));
}

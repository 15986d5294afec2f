import { precisionNames } from '../../graph/dialect.js';
import { graphMemory } from '../../graph/graph-memory.js';
import { cornerSizes, type ModelMemory, type PlannedNetwork, type RunSize } from '../model-memory.js';
import type { Network } from './build-networks.js';

/** Computes what networks take for a run of one size, from their graphs. Nothing is run. Undefined ones are left out. */
export function planNetworks(networks: readonly (Network | undefined)[], run: RunSize): readonly PlannedNetwork[] {
  return networks.flatMap((network) => {
    if (network === undefined) return [];
    const { name, graph, residence, sizes } = network;
    const precision = precisionNames[graph.dialect.compute];
    return [{ network: name, precision, residence, ...graphMemory(graph, sizes(run)) }];
  });
}

/** Computes what networks take for runs of any size. @param native the size that the model was made for, as one row */
export function modelMemory(networks: readonly Network[], native: RunSize): ModelMemory {
  const { width, height } = native;
  const low = { width: width / 2, height: height / 2, frames: 1, rows: 1 };
  const corners = [low, { ...native, rows: 2 }] as const;
  const plans = cornerSizes(corners).map((size) => planNetworks(networks, size));
  const [first = []] = plans;
  return {
    corners,
    networks: first.map(({ peakBytes: _, ...network }, i) => ({
      ...network,
      peaks: plans.map((plan) => plan[i]?.peakBytes ?? 0),
    })),
  };
}

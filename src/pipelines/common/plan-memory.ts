import { precisionNames } from '../../graph/dialect.js';
import { type GraphMemory, graphMemory, memoryOf } from '../../graph/graph-memory.js';
import { cornerSizes, type ModelMemory, type PartMemory, type PlannedNetwork, type RunSize } from '../model-memory.js';
import type { Network, NetworkParts } from './build-networks.js';

/** Computes what networks take for a run of one size, from their graphs. Nothing is run. Undefined ones are left out. */
export function planNetworks(networks: readonly (Network | undefined)[], run: RunSize): readonly PlannedNetwork[] {
  return networks.flatMap((network) => {
    if (network === undefined) return [];
    const { weightBytes, peakBytes } = graphMemory(network.graph, (network.parts ?? network).sizes(run));
    return [{ ...describe(network), weightBytes, peakBytes }];
  });
}

/** Computes what networks take for runs of any size. @param native the size that the model was made for */
export function modelMemory(networks: readonly Network[], native: Omit<RunSize, 'rows'>): ModelMemory {
  const { width, height } = native;
  const low = { ...native, frames: 1, rows: 1 };
  const corners = [low, { ...native, width: 2 * width, height: 2 * height, rows: 2 }] as const;
  return {
    corners,
    networks: networks.map((network) => {
      const memory = memoryOf(network.graph);
      // Most networks do not change along every axis.
      const known = new Map<string, GraphMemory>();
      const measured = (sizesOf: Network['sizes']) =>
        cornerSizes(corners).map((size) => {
          const sizes = sizesOf(size);
          const key = JSON.stringify(sizes);
          const result = known.get(key) ?? memory(sizes);
          known.set(key, result);
          return result;
        });
      const { parts } = network;
      const whole = measured(network.sizes);
      const [{ weightBytes } = { weightBytes: 0 }] = whole;
      return {
        ...describe(network),
        weightBytes,
        peaks: whole.map(({ peakBytes }) => peakBytes),
        ...(parts && { parts: partMemory(parts, whole, measured(parts.nothing)) }),
      };
    }),
  };
}

/** @param whole at the corners, of whole frames @param shared of what every part computes of them */
function partMemory(
  { unit, margin, mostPixels }: NetworkParts,
  whole: readonly GraphMemory[],
  shared: readonly GraphMemory[],
): PartMemory {
  return {
    unit,
    margin,
    mostPixels,
    fed: whole.map(({ feedBytes }, i) => feedBytes - (shared[i]?.feedBytes ?? 0)),
    shared: shared.map(({ peakBytes }) => peakBytes),
    sharedEnd: shared.map(({ endBytes }) => endBytes),
  };
}

function describe({ name, graph, residence }: Network): Pick<PlannedNetwork, 'network' | 'precision' | 'residence'> {
  return { network: name, precision: precisionNames[graph.dialect.compute], residence };
}

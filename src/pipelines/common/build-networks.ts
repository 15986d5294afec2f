import { InferenceError, listProblems } from '../../errors.js';
import { type Dialect, defaultDialect, type HalfType } from '../../graph/dialect.js';
import { Graph } from '../../graph/graph.js';
import type { WeightUpdate } from '../../graph/weight-update.js';
import { Weights, type WeightsOptions } from '../../graph/weights.js';
import type { Backend } from '../../runtime/backend.js';
import type { LinearRecord, QuantisedLinears } from '../../runtime/model-cache/quantised-linears.js';
import { floatTypes } from '../../weights/safetensors.js';
import type { WeightFiles, WeightRecord } from '../../weights/weight-files.js';
import type { FrameParts } from '../frame-parts.js';
import type { Residence, RunSize } from '../model-memory.js';

/** One network of a checkpoint: its graph over the checkpoint's files, and the weights that were found there. */
export interface Network {
  readonly name: string;
  readonly graph: Graph;
  readonly weights: Weights;
  readonly residence: Residence;
  /** Run-time dimensions of the graph in a run. */
  sizes(run: RunSize): Readonly<Record<string, number>>;
  /** Undefined for a network that takes frames as they are. */
  readonly parts?: NetworkParts | undefined;
  /** Makes the same network in the next wider dialect. Undefined for the widest. */
  readonly wider?: (() => Network) | undefined;
}

/** How a network works through large frames. */
export interface NetworkParts extends FrameParts {
  /**
   * Run-time dimensions of the graph for the largest part of a run.
   * @param isShort of the smallest parts, as where memory is short. Omitted: false
   */
  sizes(run: RunSize, isShort?: boolean): Readonly<Record<string, number>>;
  /** The same for a part without pixels, of which only what sees a frame as a whole is computed. */
  nothing(run: RunSize): Readonly<Record<string, number>>;
}

/** The same network in its widest dialect, float32. */
export function widestOf(network: Network): Network {
  return network.wider === undefined ? network : widestOf(network.wider());
}

/**
 * Converts the weights of networks that are not stored as graphs take them. Takes minutes for billions of elements, once.
 * @throws InferenceError of the files, or of the disk
 */
export async function prepareWeights(networks: readonly (Network | undefined)[]): Promise<void> {
  const files = new Set(networks.flatMap((network) => network?.weights.files ?? []));
  for (const each of files) await each.prepare?.();
}

/** The builder of one network's graph. */
export interface NetworkBuilder<Component extends string = string> {
  /** The part of the checkpoint that holds its weights. */
  readonly component: Component;
  /** Half types that the released weights bear in this network. Omitted: none, it is computed in float32. */
  readonly halves?: readonly HalfType[];
  readonly options?: WeightsOptions;
  /** Keys of linear layers that may compute in 8 bits. Omitted: none. */
  readonly quantises?: RegExp;
  /** When it is open. */
  readonly residence: Residence;
  /** Run-time dimensions of the graph in a run. */
  sizes(run: RunSize): Readonly<Record<string, number>>;
  /** Omitted: the network takes frames as they are. */
  readonly parts?: NetworkParts;
  build(weights: Weights): void;
}

/** Builders by the name of their network; undefined for a network that this checkpoint does not have. */
export type NetworkTable<Component extends string> = Readonly<Record<string, NetworkBuilder<Component> | undefined>>;

/** The networks of a table, by name. */
export type NetworksOf<Table> = {
  readonly [Name in keyof Table]: undefined extends Table[Name] ? Network | undefined : Network;
};

export interface NetworkSource<Component extends string> {
  /** The checkpoint as messages name it. */
  readonly path: string;
  readonly layout: 'diffusers' | 'original';
  readWeights(component: Component): Promise<WeightFiles>;
}

/** Updates of weights: by component, then by key. */
export type WeightUpdates = ReadonlyMap<string, ReadonlyMap<string, readonly WeightUpdate[]>>;

/** What becomes of the weights of a checkpoint. */
export interface WeightChanges {
  /** Omitted: none. */
  readonly updates?: WeightUpdates | undefined;
  /** Keeps linear layers in 8 bits. Omitted: they compute as the rest does. */
  readonly quantised?: QuantisedLinears | undefined;
}

interface BuildOptions<Table> extends WeightChanges {
  /** Name of this kind of checkpoint in messages: SDXL, WAN. */
  readonly model: string;
  readonly table: Table;
  readonly dialectsOf: Backend['dialectsOf'];
}

/**
 * Builds the graphs of a table over a checkpoint. Reads headers only, no weights.
 * @throws InferenceError CHECKPOINT_INVALID that lists the problems of all networks together
 */
export async function buildNetworks<Component extends string, Table extends NetworkTable<Component>>(
  checkpoint: NetworkSource<Component>,
  { model, table, dialectsOf, updates, quantised }: BuildOptions<Table>,
): Promise<NetworksOf<Table>> {
  const problems = new Set<string>();
  const note = (error: unknown) => {
    if (!(error instanceof InferenceError)) throw error;
    problems.add(error.message);
  };
  const files = new Map<Component, WeightFiles | undefined>();
  const networks: Record<string, Network> = {};
  for (const [name, builder] of Object.entries(table)) {
    if (builder === undefined) continue;
    const { component, residence, sizes, parts } = builder;
    if (!files.has(component)) {
      files.set(component, (await checkpoint.readWeights(component).catch(note)) ?? undefined);
    }
    const source = files.get(component);
    if (source === undefined) continue;
    const added = updates?.get(component);
    let layers: WeightsOptions['quantised'];
    const build = ([dialect, ...rest]: readonly Dialect[]): Network => {
      const weights = new Weights(new Graph(name, dialect ?? defaultDialect), source, {
        ...builder.options,
        ...(added && { updates: added }),
        ...(layers && { quantised: layers }),
      });
      try {
        builder.build(weights);
      } catch (error) {
        note(error);
      }
      const wider = rest.length > 0 && { wider: () => build(rest) };
      return { name, graph: weights.graph, weights, residence, sizes, parts, ...wider };
    };
    const dialects = dialectsOf(builder.halves ?? []);
    let network = build(dialects);
    for (const problem of network.weights.problems) problems.add(`${component}: ${problem}`);
    if (quantised !== undefined && builder.quantises !== undefined && problems.size === 0) {
      await prepareWeights([network]);
      layers = await quantised.of(name, quantisable(network.weights.linears, builder.quantises));
      network = build(dialects);
    }
    networks[name] = network;
  }
  if (problems.size > 0) {
    throw new InferenceError(
      'CHECKPOINT_INVALID',
      `${checkpoint.path} is not a whole ${model} checkpoint:\n${listProblems([...problems])}`,
    );
  }
  return networks as NetworksOf<Table>;
}

/** The layers that 8 bits are made of: stored as floats, and not transposed. */
function quantisable(linears: Weights['linears'], keys: RegExp): ReadonlyMap<string, LinearRecord> {
  const isFloat = (record: WeightRecord): record is WeightRecord & LinearRecord =>
    floatTypes.some((type) => type === record.dtype) && record.isTransposed !== true;
  return new Map([...linears].flatMap(([key, record]) => (keys.test(key) && isFloat(record) ? [[key, record]] : [])));
}

/** Names and shapes of the tensors of one component, in the order in which its networks ask for them. */
export type WeightPlan = readonly (readonly [name: string, shape: readonly number[]])[];

/** The tensors that a table asks for, by component; none for a component that none of its networks reads. */
export function planWeights<Component extends string>(
  components: readonly Component[],
  table: NetworkTable<Component>,
): Readonly<Record<Component, WeightPlan>> {
  const planned = components.map((component) => {
    const shapes = new Map<string, readonly number[]>();
    for (const builder of Object.values(table)) {
      if (builder?.component !== component) continue;
      const files = { path: component, tensors: new Map(), metadata: {} };
      const weights = new Weights(new Graph(component, defaultDialect), files);
      builder.build(weights);
      for (const [name, shape] of weights.wanted) shapes.set(name, shape);
    }
    return [component, [...shapes]] as const;
  });
  return Object.fromEntries(planned) as unknown as Record<Component, WeightPlan>;
}

import { InferenceError } from '../../errors.js';
import { precisionNames } from '../../graph/dialect.js';
import type { Graph } from '../../graph/graph.js';
import type { Backend } from '../../runtime/backend.js';
import { isOutOfMemory } from '../../runtime/out-of-memory.js';
import {
  CarriedTensors,
  createSession,
  type Feed,
  type NetworkSession,
  type RunOptions,
  type SessionOptions,
  type TensorData,
} from '../../runtime/session.js';
import { isUnsupported } from '../../runtime/unsupported.js';
import type { NetworkPrecision } from '../pipeline.js';
import { type Network, prepareWeights, widestOf } from './build-networks.js';
import { MemoryRelief } from './memory-relief.js';
import { assertFitsFloat16, UnfitWeightsError } from './narrowing.js';
import { isNotFinite, NotFiniteError } from './not-finite.js';
import { SourceFiles } from './source-files.js';
import { testFeeds } from './test-feeds.js';

export interface OpenerOptions {
  readonly base?: NetworkOpener | undefined;
  /** What must not change before a network is opened. Default: those of the base; for a bare model, none. */
  readonly sources?: SourceFiles | undefined;
  /** Frees memory when it runs out. Default: nothing is freed. */
  readonly relief?: MemoryRelief | undefined;
}

/**
 * Opens the networks of one model, each in the narrowest dialect that is right for it. A half-precision network that its weights
 * do not fit, that the provider lacks an op for, or whose test run gives numbers that are not finite is opened one step wider. Where
 * memory runs out, what is idle is freed and the same is tried again: a wider type would need more. Other errors are those of any type.
 */
export class NetworkOpener {
  readonly backend: Backend;
  readonly #precisions = new Map<string, NetworkPrecision>();
  readonly #networks = new Map<string, Network>();
  /** What a network came to when it was opened first: one that is opened for every prompt is tried out once. */
  readonly #reached = new WeakMap<Network, Network>();
  readonly #base: NetworkOpener | undefined;
  readonly relief: MemoryRelief;
  readonly sources: SourceFiles;

  /**
   * @param networks all of the model, so that those which are opened later are known at once
   * @param options `base`: opened the networks that a variant shares with the bare model; omitted, it is the bare model
   */
  constructor(
    backend: Backend,
    networks: readonly (Network | undefined)[],
    {
      base,
      relief = base?.relief ?? new MemoryRelief(),
      sources = base?.sources ?? new SourceFiles(),
    }: OpenerOptions = {},
  ) {
    this.backend = backend;
    this.#base = base;
    this.relief = relief;
    this.sources = sources;
    for (const network of networks) if (network) this.#note(network, '');
  }

  /** What each network computes in; of one that is not open yet, what it will be tried in first. */
  get precisions(): readonly NetworkPrecision[] {
    const all = [...(this.#base?.precisions ?? []), ...this.#precisions.values()];
    return [...new Map(all.map((precision) => [precision.network, precision])).values()];
  }

  /** Each network as it was opened; one that is not open yet, as it will be tried first. */
  get networks(): readonly Network[] {
    return [...this.#networks.values()];
  }

  /** For the networks that a variant has of its own. */
  forVariant(): NetworkOpener {
    return new NetworkOpener(this.backend, [], { base: this });
  }

  /** Bytes that the weights of networks take on the device. */
  weightBytes(networks: readonly Network[]): number {
    return networks.reduce((bytes, { name, weights }) => {
      const precision = this.#precisions.get(name)?.precision;
      const isWide = precision === 'fp32' || precision === 'int8';
      return bytes + (isWide ? 4 : 2) * weights.parameters;
    }, 0);
  }

  /** A session whose runs end with NOT_FINITE instead of giving numbers that are not finite. */
  async open(network: Network): Promise<NetworkSession> {
    const [session] = (await this.openAlike([network])) as [NetworkSession];
    return session;
  }

  /**
   * The same for networks that pass tensors to each other, and so compute in one type.
   * @param optionsOf of the session over a graph
   * @throws ReplacedFileError where their files are no longer those that the model was loaded from
   */
  openAlike(
    networks: readonly Network[],
    optionsOf: (graph: Graph) => SessionOptions = () => ({}),
  ): Promise<readonly NetworkSession[]> {
    return this.sources.reading(
      () => this.#openNarrowest(networks, optionsOf),
      async (sessions) => {
        for (const session of sessions) await session.release();
      },
    );
  }

  async #openNarrowest(
    networks: readonly Network[],
    optionsOf: (graph: Graph) => SessionOptions,
  ): Promise<readonly NetworkSession[]> {
    // A folder of cached files may have been cleared since the model was loaded.
    await prepareWeights(networks);
    const reasons: string[] = [];
    let damaged: UnfitWeightsError | undefined;
    for (let candidates = networks.map((network) => this.#reached.get(network) ?? network); ; ) {
      const sessions: NetworkSession[] = [];
      try {
        for (const [i, candidate] of candidates.entries()) {
          const isKnown = this.#reached.get(networks[i] as Network) === candidate;
          const open = isKnown ? openFinite : openTested;
          const options = optionsOf(candidate.graph);
          sessions.push(await this.relief.retrying(() => open(candidate, this, options)));
        }
        if (damaged !== undefined) await this.#assertFinite(candidates, sessions, damaged);
        for (const [i, candidate] of candidates.entries()) this.#keep(networks[i] as Network, candidate, reasons);
        return sessions;
      } catch (error) {
        for (const session of sessions) await session.release();
        if (!isForWider(error)) throw error;
        if (error instanceof UnfitWeightsError && error.isDamaged) damaged ??= error;
        const wider = candidates.flatMap((network) => network.wider?.() ?? []);
        if (wider.length < candidates.length) throw error;
        const compute = candidates[0]?.graph.dialect.compute ?? 'f32';
        reasons.push(`not ${precisionNames[compute]}: ${firstLine(error)}`);
        candidates = wider;
      }
    }
  }

  /** The same network in float32, for a result that half precision was too narrow for; undefined where it is float32 already. */
  wide(network: Network, options: SessionOptions = {}): (() => Promise<NetworkSession>) | undefined {
    if (network.wider === undefined) return undefined;
    return () => {
      this.#note(network, 'a result was not finite and was computed once more in fp32');
      return this.sources.reading(
        () => this.relief.retrying(() => openFinite(widestOf(network), this, options)),
        (session) => session.release(),
      );
    };
  }

  /** Weights that are no numbers spoil what is computed with them in every type, unless nothing is: then the network is used. */
  async #assertFinite(
    networks: readonly Network[],
    sessions: readonly NetworkSession[],
    { message }: UnfitWeightsError,
  ): Promise<void> {
    for (const [i, session] of sessions.entries()) {
      const network = networks[i] as Network;
      // The narrower types had their test run.
      if (network.graph.dialect.compute !== 'f32') continue;
      await testRun(session, network).catch((error: unknown) => {
        if (!isNotFinite(error)) throw error;
        const damage = `${message}, and so has all that is computed with them; the file is damaged, get it again`;
        throw new InferenceError('CHECKPOINT_INVALID', damage, { cause: error });
      });
    }
  }

  #keep(network: Network, opened: Network, reasons: readonly string[]): void {
    if (this.#reached.get(network) === opened) return;
    this.#reached.set(network, opened);
    this.#note(opened, reasons.join('; '));
  }

  #note(network: Network, reason: string): void {
    const { name, graph, weights } = network;
    this.#networks.set(name, network);
    const precision = weights.isQuantised ? 'int8' : precisionNames[graph.dialect.compute];
    this.#precisions.set(name, { network: name, precision, ...(reason !== '' && { reason }) });
  }
}

async function openTested(network: Network, opener: NetworkOpener, options: SessionOptions): Promise<NetworkSession> {
  const { graph, weights } = network;
  // Both read all of the weights: side by side, they take as long as the slower one.
  const [fits, opened] = await Promise.allSettled([assertFitsFloat16(weights), openFinite(network, opener, options)]);
  if (fits.status === 'rejected') {
    if (opened.status === 'fulfilled') await opened.value.release();
    throw fits.reason;
  }
  if (opened.status === 'rejected') throw opened.reason;
  const session = opened.value;
  if (graph.dialect.compute === 'f32') return session;
  try {
    await testRun(session, network);
    return session;
  } catch (error) {
    await session.release();
    throw error;
  }
}

async function testRun(session: NetworkSession, network: Network): Promise<void> {
  const carried = new CarriedTensors();
  try {
    await session.run(testFeeds(network), { carried });
  } finally {
    carried.release();
  }
}

/** True for what a wider type may do better: numbers that do not fit, and ops that a provider does not have in this one. */
function isForWider(error: unknown): boolean {
  if (isOutOfMemory(error)) return false;
  return isNotFinite(error) || error instanceof UnfitWeightsError || isUnsupported(error);
}

/**
 * A session whose runs end with NOT_FINITE instead of giving numbers that are not finite. A run that runs out of memory is run again
 * when something idle was freed.
 */
async function openFinite(
  { name, graph, weights, residence }: Network,
  { backend, relief }: NetworkOpener,
  options: SessionOptions,
): Promise<NetworkSession> {
  const session = await createSession(graph, backend, {
    ...options,
    // Packing the weights of an encoder that is opened for a prompt takes as long as the run of it saves.
    packsWeights: residence !== 'encode',
    // A LoRA variant would take as much of the disk as the model, for weights that few jobs need.
    isCached: weights.options.updates === undefined,
  });
  return {
    async run<T extends TensorData = Float32Array>(feeds: Readonly<Record<string, Feed>>, options?: RunOptions) {
      const work = () => relief.retrying(() => session.run<T>(feeds, options));
      const outputs = await (backend.turns?.run(work, options?.signal) ?? work());
      for (const values of Object.values<TensorData>(outputs)) {
        if (values instanceof Float32Array && !areFinite(values)) {
          throw new NotFiniteError(name, precisionNames[graph.dialect.compute]);
        }
      }
      return outputs;
    },
    release: () => session.release(),
  };
}

// Infinities and NaN times zero are NaN, and stay so in a sum: one branch for all values.
function areFinite(values: Float32Array): boolean {
  let zero = 0;
  for (let i = 0; i < values.length; i += 1) zero += (values[i] ?? 0) * 0;
  return zero === 0;
}

function firstLine(error: unknown): string {
  if (isNotFinite(error)) return error.fact;
  return (error instanceof Error ? error.message : String(error)).split('\n')[0] ?? '';
}

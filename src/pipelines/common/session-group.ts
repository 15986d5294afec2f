import type { Graph } from '../../graph/graph.js';
import type { Feed, NetworkSession, RunOptions, SessionOptions, TensorData } from '../../runtime/session.js';
import { onceDone } from '../../std/once-done.js';
import type { Network } from './build-networks.js';
import type { NetworkOpener } from './network-opener.js';

interface Releasable {
  release(): Promise<void>;
}

/** The measure by which networks are released that no job uses now; they open again with the next one that needs them. */
const IDLE_NETWORKS = 'released_idle_networks';

/** Sessions that are released together. A model has a group, and each variant of it has one for what it does not share. */
export class SessionGroup {
  readonly #opener: NetworkOpener;
  readonly #members: Releasable[] = [];

  constructor(opener: NetworkOpener) {
    this.#opener = opener;
  }

  /** Fills a group; what was opened is released again where `fill` throws, for example because memory ran out. */
  static async fill<T>(opener: NetworkOpener, fill: (group: SessionGroup) => Promise<T>): Promise<T> {
    const group = new SessionGroup(opener);
    try {
      return await fill(group);
    } catch (error) {
      await group.release();
      throw error;
    }
  }

  /** What to do when memory runs out. */
  get relief(): NetworkOpener['relief'] {
    return this.#opener.relief;
  }

  async open(network: Network): Promise<NetworkSession> {
    return this.add(await this.#opener.open(network));
  }

  /** Sessions of networks that pass tensors to each other. */
  async openAlike(
    networks: readonly Network[],
    optionsOf: (graph: Graph) => SessionOptions,
  ): Promise<readonly NetworkSession[]> {
    const sessions = await this.#opener.openAlike(networks, optionsOf);
    for (const session of sessions) this.add(session);
    return sessions;
  }

  /** A session that is opened when it is first asked for; one that did not open is tried again. */
  onDemand(network: Network, optionsOf?: (graph: Graph) => SessionOptions): OnDemandSession {
    const open = this.#releasable(() => this.#opener.openAlike([network], optionsOf));
    return async () => (await open())[0] as NetworkSession;
  }

  /** The same for networks that pass tensors to each other. */
  onDemandAlike(
    networks: readonly Network[],
    optionsOf: (graph: Graph) => SessionOptions,
  ): () => Promise<readonly NetworkSession[]> {
    return this.#releasable(() => this.#opener.openAlike(networks, optionsOf));
  }

  /** The same in float32, for results that are not finite; undefined for a network that computes in that anyway. */
  wideOnDemand(network: Network, options?: SessionOptions): OnDemandSession | undefined {
    const openWide = this.#opener.wide(network, options);
    return openWide && onceDone(async () => this.add(await openWide()));
  }

  /** Sessions that are released while none of them runs, when memory runs out, and opened again when they are asked for. */
  #releasable(open: () => Promise<readonly NetworkSession[]>): () => Promise<readonly NetworkSession[]> {
    let opening: Promise<readonly NetworkSession[]> | undefined;
    let opened: readonly NetworkSession[] = [];
    let running = 0;
    const counted = (session: NetworkSession): NetworkSession => ({
      async run<T extends TensorData = Float32Array>(feeds: Readonly<Record<string, Feed>>, options?: RunOptions) {
        running += 1;
        try {
          return await session.run<T>(feeds, options);
        } finally {
          running -= 1;
        }
      },
      release: () => session.release(),
    });
    const release = async () => {
      const sessions = opened;
      [opening, opened] = [undefined, []];
      for (const session of sessions) await session.release();
    };
    const removeSource = this.relief.addSource(IDLE_NETWORKS, async () => {
      if (running > 0 || opened.length === 0) return false;
      await release();
      return true;
    });
    this.add({
      async release() {
        removeSource();
        await opening?.catch(() => undefined);
        await release();
      },
    });
    return () => {
      opening ??= open().then(
        (sessions) => {
          opened = sessions;
          return sessions.map(counted);
        },
        (error: unknown) => {
          opening = undefined;
          throw error;
        },
      );
      return opening;
    };
  }

  /** Lets the group release something that is no session of its own. */
  add<T extends Releasable>(member: T): T {
    this.#members.push(member);
    return member;
  }

  /** Releases its members in the order in which they came. */
  async release(): Promise<void> {
    for (const member of this.#members.splice(0)) await member.release();
  }
}

export type OnDemandSession = () => Promise<NetworkSession>;

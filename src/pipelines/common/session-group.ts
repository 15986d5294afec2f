import type { NetworkSession, SessionOptions } from '../../runtime/session.js';
import type { Network } from './build-networks.js';
import type { NetworkOpener } from './network-opener.js';

interface Releasable {
  release(): Promise<void>;
}

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

  open(network: Network, options?: SessionOptions): Promise<NetworkSession> {
    return this.#keep(this.#opener.open(network, options));
  }

  /** A session that is opened when it is first asked for; one that did not open is tried again. */
  onDemand(network: Network, options?: SessionOptions): OnDemandSession {
    return this.#onDemand(() => this.#opener.open(network, options));
  }

  /** The same in float32, for results that are not finite; undefined for a network that computes in that anyway. */
  wideOnDemand(network: Network, options?: SessionOptions): OnDemandSession | undefined {
    const openWide = this.#opener.wide(network, options);
    return openWide && this.#onDemand(openWide);
  }

  #onDemand(open: OnDemandSession): OnDemandSession {
    let session: Promise<NetworkSession> | undefined;
    return () => {
      session ??= this.#keep(open()).catch((error: unknown) => {
        session = undefined;
        throw error;
      });
      return session;
    };
  }

  #keep(session: Promise<NetworkSession>): Promise<NetworkSession> {
    this.#members.push({ release: async () => (await session.catch(() => undefined))?.release() });
    return session;
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

import type { Graph } from '../graph/graph.js';
import type { Backend } from './backend.js';
import { createSession, type NetworkSession, type SessionOptions } from './session.js';

interface Releasable {
  release(): Promise<void>;
}

/** Sessions that are released together. A model has a group, and each variant of it has one for what it does not share. */
export class SessionGroup {
  readonly #backend: Backend;
  readonly #members: Releasable[] = [];

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** Fills a group; what was opened is released again where `fill` throws, for example because memory ran out. */
  static async fill<T>(backend: Backend, fill: (group: SessionGroup) => Promise<T>): Promise<T> {
    const group = new SessionGroup(backend);
    try {
      return await fill(group);
    } catch (error) {
      await group.release();
      throw error;
    }
  }

  /** Opens a session over a graph. */
  open(graph: Graph, options?: SessionOptions): Promise<NetworkSession> {
    const session = createSession(graph, this.#backend, options);
    this.#members.push({ release: async () => (await session.catch(() => undefined))?.release() });
    return session;
  }

  /** A session that is opened when it is first asked for; one that did not open is tried again. */
  onDemand(graph: Graph, options?: SessionOptions): OnDemandSession {
    let session: Promise<NetworkSession> | undefined;
    return () => {
      session ??= this.open(graph, options).catch((error: unknown) => {
        session = undefined;
        throw error;
      });
      return session;
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

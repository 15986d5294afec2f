/** A process that dies at a chosen call: from then on no call is answered. */
export class Mortal {
  #isDead = false;
  #die: () => void = () => undefined;
  #bury: (reason: Error) => void = () => undefined;
  readonly #grave: Promise<never>;
  /** Resolves at the chosen call. */
  readonly death: Promise<void>;

  constructor() {
    this.death = new Promise((resolve) => {
      this.#die = resolve;
    });
    this.#grave = new Promise((_, reject) => {
      this.#bury = reject;
    });
    this.#grave.catch(() => undefined);
  }

  /** Rejects the calls that still wait for an answer. */
  bury(): void {
    this.#isDead = true;
    this.#bury(new Error('killed'));
  }

  /** Wraps an object whose calls are answered until the edge. */
  wrap<T extends object>(target: T, edge?: Edge): T {
    return new Proxy(target, {
      get: (of, name) => {
        const member: unknown = Reflect.get(of, name, of);
        if (typeof member !== 'function') return member;
        return (...args: readonly unknown[]) => this.#call(() => member.apply(of, args), args, name, edge);
      },
    });
  }

  async #call(call: () => unknown, args: readonly unknown[], name: string | symbol, edge?: Edge): Promise<unknown> {
    if (this.#isDead) return this.#grave;
    const isEdge = edge !== undefined && edge.method === name && (edge.matches?.(args) ?? true);
    if (isEdge && edge.when === 'after') await call();
    if (!isEdge) return call();
    this.#isDead = true;
    this.#die();
    return this.#grave;
  }
}

export interface Edge {
  readonly method: string;
  /** `after`: the chosen call is still made. */
  readonly when: 'before' | 'after';
  /** Omitted: the first call. */
  readonly matches?: (args: readonly unknown[]) => boolean;
}

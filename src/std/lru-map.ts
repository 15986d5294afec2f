/**
 * A map that evicts the entries that were used longest ago once the costs of all exceed its capacity. The last one used is kept
 * whatever it costs.
 */
export class LruMap<K, V> {
  /** In order of use, the entry used last at the end. */
  readonly #entries = new Map<K, V>();
  readonly #capacity: number;
  readonly #costOf: (value: V) => number;

  /** @param costOf cost of an entry. Omitted: 1, and the capacity is a number of entries */
  constructor(capacity: number, costOf: (value: V) => number = () => 1) {
    this.#capacity = capacity;
    this.#costOf = costOf;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Does not count as a use. */
  has(key: K): boolean {
    return this.#entries.has(key);
  }

  get(key: K): V | undefined {
    const value = this.#entries.get(key);
    if (value !== undefined) this.#use(key, value);
    return value;
  }

  set(key: K, value: V): void {
    this.#use(key, value);
    let cost = 0;
    for (const each of this.#entries.values()) cost += this.#costOf(each);
    while (cost > this.#capacity && this.#entries.size > 1) {
      const evicted = this.takeOldest();
      if (evicted !== undefined) cost -= this.#costOf(evicted);
    }
  }

  /** Removes an entry. */
  take(key: K): V | undefined {
    const value = this.#entries.get(key);
    this.#entries.delete(key);
    return value;
  }

  /** Removes the entry used longest ago. */
  takeOldest(): V | undefined {
    for (const [key, value] of this.#entries) {
      this.#entries.delete(key);
      return value;
    }
    return undefined;
  }

  /** The key used longest ago comes first. */
  keys(): readonly K[] {
    return [...this.#entries.keys()];
  }

  values(): readonly V[] {
    return [...this.#entries.values()];
  }

  #use(key: K, value: V): void {
    this.#entries.delete(key);
    this.#entries.set(key, value);
  }
}

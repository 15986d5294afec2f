import { LruMap } from './lru-map.js';

interface Entry<V> {
  readonly value: V;
  readonly until: number;
}

/** A map whose entries go after a time, on a clock that nobody sets. Above its capacity those used longest ago go first. */
export class ExpiringMap<K, V> {
  readonly #entries: LruMap<K, Entry<V>>;
  readonly #validMs: number;

  /** @param capacity largest number of entries */
  constructor(capacity: number, validMs: number) {
    this.#entries = new LruMap(capacity);
    this.#validMs = validMs;
  }

  has(key: K): boolean {
    return this.get(key) !== undefined;
  }

  get(key: K): V | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined || entry.until > performance.now()) return entry?.value;
    this.#entries.take(key);
    return undefined;
  }

  set(key: K, value: V): void {
    this.#entries.set(key, { value, until: performance.now() + this.#validMs });
  }
}

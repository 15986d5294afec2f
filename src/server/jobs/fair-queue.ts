interface Entry<T> {
  item: T;
  readonly owner: string;
  /** Turn in which the item leaves. */
  readonly turn: number;
}

/** Least room for owners that have had their turn, before they are looked through. */
const MIN_REMEMBERED = 1024;

/**
 * A queue in which owners take turns: one item of each owner a turn, the items of one owner in their order. An owner that was not
 * waiting comes before all others, once: after that its turns are like everybody's. So the wait of somebody with few items does
 * not depend on how many the others have. Start-time fair queueing with items of equal cost,
 * https://doi.org/10.1109/90.649569
 *
 * Iterates in the order in which the items leave.
 */
export class FairQueue<T> {
  /** In the order in which they leave. */
  readonly #entries: Entry<T>[] = [];
  /** First free turn of each owner. */
  readonly #free = new Map<string, number>();
  /** Turn of the item that left last. */
  #turn = 0;

  /** Number of owners whose last turn is remembered. */
  get remembered(): number {
    return this.#free.size;
  }

  get length(): number {
    return this.#entries.length;
  }

  /** Adds an item. @returns its place */
  add(item: T, owner: string): number {
    const free = this.#free.get(owner);
    // Items of later turns wait for this turn's: a newcomer goes before those of this turn.
    const turn = free === undefined || free <= this.#turn ? this.#turn - 0.5 : free;
    this.#free.set(owner, turn + 1);
    const place = this.#insert({ item, owner, turn });
    this.#forgetServed();
    return place;
  }

  /** Puts an item that was taken back to the front. */
  putBack(item: T, owner: string): void {
    this.#entries.unshift({ item, owner, turn: Number.NEGATIVE_INFINITY });
  }

  /**
   * Removes an item that its owner gave up. The owner's later items move up, so that the turn is not lost.
   * @returns its former place, from which on others have moved; -1 where it does not wait
   */
  remove(item: T): number {
    const place = this.#entries.findIndex((entry) => entry.item === item);
    const removed = this.#entries[place];
    if (removed === undefined) return -1;
    const { owner } = removed;
    let last = place;
    for (let i = place + 1; i < this.#entries.length; i++) {
      const entry = this.#entries[i] as Entry<T>;
      if (entry.owner !== owner) continue;
      (this.#entries[last] as Entry<T>).item = entry.item;
      last = i;
    }
    this.#entries.splice(last, 1);
    this.#free.set(owner, (this.#free.get(owner) ?? 0) - 1);
    return place;
  }

  /** Takes an item, whose owner has had its turn. */
  take(item: T): void {
    const place = this.#entries.findIndex((entry) => entry.item === item);
    const [taken] = place < 0 ? [] : this.#entries.splice(place, 1);
    // An item that overtook others does not end their turn.
    if (place === 0 && taken !== undefined) this.#turn = Math.max(this.#turn, taken.turn);
  }

  slice(from: number, to?: number): readonly T[] {
    return this.#entries.slice(from, to).map(({ item }) => item);
  }

  *[Symbol.iterator](): Generator<T, void, undefined> {
    for (const { item } of this.#entries) yield item;
  }

  /** After the items of the same turn that came before. */
  #insert(entry: Entry<T>): number {
    let low = 0;
    let high = this.#entries.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#entries[middle] as Entry<T>).turn <= entry.turn) low = middle + 1;
      else high = middle;
    }
    this.#entries.splice(low, 0, entry);
    return low;
  }

  /** Forgets owners that have nothing here, once they are many: their next items count as first ones. */
  #forgetServed(): void {
    if (this.#free.size <= 2 * this.#entries.length + MIN_REMEMBERED) return;
    const waiting = new Set(this.#entries.map(({ owner }) => owner));
    for (const owner of this.#free.keys()) if (!waiting.has(owner)) this.#free.delete(owner);
  }
}

export interface TurnOptions {
  /** Ends the wait: a task that was aborted before its turn is not run. Omitted: nothing does. */
  readonly signal?: AbortSignal | undefined;
  /** Whose task it is. Tasks of different keys take turns. Omitted: all have one key. */
  readonly key?: string;
}

/** Runs at most a fixed number of tasks at once: those of one key in order of arrival, one of each key in turn. */
export class Semaphore {
  /** Tasks that wait, by key. The key whose turn is next comes first. */
  readonly #waiting = new Map<string, (() => void)[]>();
  readonly #running = new Map<string, number>();
  readonly #perKey: number;
  #free: number;

  /** @param perKey most tasks of one key at once. Omitted: all permits */
  constructor(permits: number, perKey = permits) {
    this.#free = permits;
    this.#perKey = perKey;
  }

  /**
   * Runs a task once a permit is free.
   * @throws the signal's reason
   */
  async run<T>(task: () => Promise<T>, { signal, key = '' }: TurnOptions = {}): Promise<T> {
    signal?.throwIfAborted();
    if (this.#free > 0 && this.#mayRun(key)) this.#take(key);
    else await this.#turn(key, signal);
    try {
      return await task();
    } finally {
      this.#release(key);
    }
  }

  #mayRun(key: string): boolean {
    return (this.#running.get(key) ?? 0) < this.#perKey;
  }

  #take(key: string): void {
    this.#free -= 1;
    this.#running.set(key, (this.#running.get(key) ?? 0) + 1);
  }

  #release(key: string): void {
    this.#free += 1;
    const left = (this.#running.get(key) ?? 1) - 1;
    if (left === 0) this.#running.delete(key);
    else this.#running.set(key, left);
    const next = [...this.#waiting.keys()].find((each) => this.#mayRun(each));
    if (next === undefined) return;
    const tasks = this.#waiting.get(next) ?? [];
    const begin = tasks.shift();
    this.#waiting.delete(next);
    if (tasks.length > 0) this.#waiting.set(next, tasks);
    this.#take(next);
    begin?.();
  }

  #turn(key: string, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      const tasks = this.#waiting.get(key) ?? [];
      const begin = () => {
        signal?.removeEventListener('abort', leave);
        resolve();
      };
      const leave = () => {
        tasks.splice(tasks.indexOf(begin), 1);
        if (tasks.length === 0) this.#waiting.delete(key);
        reject(signal?.reason);
      };
      signal?.addEventListener('abort', leave, { once: true });
      tasks.push(begin);
      this.#waiting.set(key, tasks);
    });
  }
}

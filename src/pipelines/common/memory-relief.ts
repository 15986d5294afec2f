import { isOutOfMemory } from '../../runtime/out-of-memory.js';

/** Frees memory that nothing uses now. @returns false if there was none */
export type FreeMemory = () => Promise<boolean>;

/** One way to do some work. */
export interface Attempt<T> {
  /** Name of the measure that the attempt takes. Omitted: none, it is the ordinary way. */
  readonly measure?: string;
  readonly run: () => Promise<T>;
}

/**
 * What an engine does when the device's memory runs out, and the measures that it took for the jobs that run now. It first frees
 * what is idle, then does the work in smaller parts.
 */
export class MemoryRelief {
  /** By measure, in the order in which they are tried. */
  readonly #sources = new Map<string, FreeMemory[]>();
  readonly #taken = new Set<string>();
  /** The attempt that succeeded, by work: the next one of the same jobs starts there. */
  readonly #reached = new Map<string, number>();
  /** A source that frees memory may run out of it itself. */
  #isFreeing = false;

  /** Measures that were taken since `begin`, in their order. */
  get taken(): readonly string[] {
    return [...this.#taken];
  }

  /** Starts a batch of jobs. */
  begin(): void {
    this.#taken.clear();
    this.#reached.clear();
  }

  /** Records a measure that the work itself took. */
  note(measure: string): void {
    this.#taken.add(measure);
  }

  /** Adds something that can be freed. Measures are tried in the order in which they were named first. @returns what removes it */
  addSource(measure: string, free: FreeMemory): () => void {
    const sources = this.#sources.get(measure) ?? [];
    this.#sources.set(measure, sources);
    sources.push(free);
    return () => {
      const at = sources.indexOf(free);
      if (at >= 0) sources.splice(at, 1);
    };
  }

  /** Runs something again while it runs out of memory and something idle could be freed. */
  async retrying<T>(run: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await run();
      } catch (error) {
        if (!isOutOfMemory(error) || !(await this.#free())) throw error;
      }
    }
  }

  /**
   * Makes attempts until one has enough memory. The last error is thrown where none has.
   * @param work names the work: it starts with the attempt that succeeded for the same jobs
   */
  async shrink<T>(work: string, attempts: readonly Attempt<T>[]): Promise<T> {
    for (let i = this.#reached.get(work) ?? 0; ; i += 1) {
      const { measure, run } = attempts[i] as Attempt<T>;
      try {
        const result = await run();
        this.#reached.set(work, i);
        if (measure !== undefined) this.#taken.add(measure);
        return result;
      } catch (error) {
        if (!isOutOfMemory(error) || i === attempts.length - 1) throw error;
      }
    }
  }

  /** Takes the first measure that frees something. */
  async #free(): Promise<boolean> {
    if (this.#isFreeing) return false;
    this.#isFreeing = true;
    try {
      for (const [measure, sources] of this.#sources) {
        let hasFreed = false;
        for (const free of sources) hasFreed = (await free()) || hasFreed;
        if (!hasFreed) continue;
        this.#taken.add(measure);
        return true;
      }
      return false;
    } finally {
      this.#isFreeing = false;
    }
  }
}

import { LruMap } from '../../std/lru-map.js';

/** A file beside the checkpoint that a request names, as the server found it. */
export interface NamedRevision {
  /** Name in requests. */
  readonly name: string;
  readonly path: string;
  /** Another one when the file was replaced. */
  readonly revision: string;
}

/** A job may use as many; others wait in memory for the next one, until it runs out. */
const KEPT = 2;

/** Networks of files that requests name, such as ControlNets. Those used last stay open, for all variants of a model. */
export class KeptFiles<T extends { release(): Promise<void> }> {
  readonly #open: (path: string) => Promise<T>;
  readonly #opened = new LruMap<string, T>(Number.POSITIVE_INFINITY);

  constructor(open: (path: string) => Promise<T>) {
    this.#open = open;
  }

  /** @throws InferenceError for a file that cannot be read or does not fit the model */
  async get({ name, path, revision }: NamedRevision): Promise<T> {
    const key = `${revision} ${name}`;
    const known = this.#opened.get(key);
    if (known !== undefined) return known;
    const opened = await this.#open(path);
    this.#opened.set(key, opened);
    return opened;
  }

  /** Releases those that were used longest ago. Call it while no job uses any. */
  async trim(): Promise<void> {
    while (this.#opened.size > KEPT) await this.#opened.takeOldest()?.release();
  }

  async release(): Promise<void> {
    while (this.#opened.size > 0) await this.#opened.takeOldest()?.release();
  }
}

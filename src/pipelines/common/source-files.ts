import { InferenceError } from '../../errors.js';
import { fileVersion } from '../../std/file-version.js';
import type { Network } from './build-networks.js';

/** The checkpoint is no longer the one that was loaded. The process ends with it, and another one loads what is there now. */
export class ReplacedFileError extends InferenceError {
  readonly file: string;

  constructor(file: string) {
    const message = 'the checkpoint was replaced after it was loaded; it is loaded again, send the job again';
    super('ENGINE_STARTING', message, { retryAfterMs: 1000 });
    this.file = file;
  }
}

/**
 * The files of a checkpoint as they were when it was loaded. Without a look at them, a network that is opened later, or once more with
 * LoRAs, takes the weights of whatever is there by then: of another checkpoint, or of a file that is half written.
 */
export class SourceFiles {
  readonly #versions: ReadonlyMap<string, string>;

  constructor(versions: ReadonlyMap<string, string> = new Map()) {
    this.#versions = versions;
  }

  /** Those that the weights of these networks come from, also under the names that the user gave, which may be links. */
  static async of(networks: readonly (Network | undefined)[]): Promise<SourceFiles> {
    const paths = new Set(
      networks.flatMap((network) => (network ? [network.weights.files.path, ...network.weights.sources] : [])),
    );
    const versions = [...paths].map(async (path) => [path, await fileVersion(path)] as const);
    return new SourceFiles(new Map(await Promise.all(versions)));
  }

  /**
   * Does what reads them.
   * @param release what the work came to, where it does not count. Default: there is nothing to release
   * @throws ReplacedFileError, whatever the work came to, where one of them changed before its end
   */
  async reading<T>(work: () => Promise<T>, release?: (result: T) => Promise<void>): Promise<T> {
    await this.#assertUnchanged();
    const [outcome] = await Promise.allSettled([work()]);
    try {
      await this.#assertUnchanged();
    } catch (error) {
      if (outcome.status === 'fulfilled') await release?.(outcome.value);
      throw error;
    }
    if (outcome.status === 'rejected') throw outcome.reason;
    return outcome.value;
  }

  async #assertUnchanged(): Promise<void> {
    for (const [path, version] of this.#versions) {
      if ((await fileVersion(path)) !== version) throw new ReplacedFileError(path);
    }
  }
}

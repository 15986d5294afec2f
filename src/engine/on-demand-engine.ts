import type { Logger } from 'pino';
import { InferenceError } from '../errors.js';
import { createBackoff } from '../std/backoff.js';
import type { Engine, RunHandle } from './engine.js';
import type { Grant } from './memory-ledger.js';
import type { LoadProgress, Work } from './messages.js';

export interface OnDemandOptions<W extends Work> {
  /** An engine of the kind `on-demand`. */
  readonly engine: Engine<W>;
  /** Requests the memory of the model. */
  readonly grant: () => Promise<Pick<Grant, 'settle'>>;
  /** Time from the last use to the end of the process, in ms. */
  readonly idleMs: number;
  readonly log: Logger;
}

/** The right to run jobs. The engine stays loaded until the lease is released. */
export interface EngineLease<W extends Work> {
  run(job: W['job']): RunHandle<W>;
  release(): void;
}

/**
 * An engine that its first user loads and that ends after an idle time. Only the end of its process frees its memory.
 * Users that come while it loads wait for the same load.
 */
export class OnDemandEngine<W extends Work> {
  readonly engine: Engine<W>;
  readonly #options: OnDemandOptions<W>;
  readonly #log: Logger;
  /** A model that failed to load is not tried again for every prompt. */
  readonly #backoff = createBackoff({ initial: 1_000, max: 60_000 });
  #users = 0;
  #starting: Promise<void> | undefined;
  #ending: Promise<void> | undefined;
  #idleTimer: NodeJS.Timeout | undefined;
  #failure: { readonly error: InferenceError; readonly until: number } | undefined;
  #whenUnused: (() => void) | undefined;

  constructor(options: OnDemandOptions<W>) {
    this.engine = options.engine;
    this.#options = options;
    this.#log = options.log.child({ model: options.engine.spec.model });
  }

  get isLoaded(): boolean {
    const { state } = this.engine;
    return state === 'ready' || state === 'busy';
  }

  /**
   * Loads the engine if needed, and leases it.
   * @param onLoading called while the engine loads, at least once
   * @throws InferenceError the load failure; the signal's reason
   */
  async acquire(signal: AbortSignal, onLoading: (progress: LoadProgress | undefined) => void): Promise<EngineLease<W>> {
    // Let a pending unload finish first, so that new users cannot delay it forever.
    while (this.#ending !== undefined) await settledOrAborted(this.#ending, signal);
    this.#users += 1;
    clearTimeout(this.#idleTimer);
    let isReleased = false;
    const release = () => {
      if (isReleased) return;
      isReleased = true;
      this.#users -= 1;
      this.#endWhenIdle();
    };
    try {
      while (!this.isLoaded) {
        signal.throwIfAborted();
        await this.#load(signal, onLoading);
      }
    } catch (error) {
      release();
      throw error;
    }
    return {
      run: (job) => {
        const [handle] = this.engine.run([job]);
        if (handle === undefined) throw new Error('a job without a handle');
        return handle;
      },
      release,
    };
  }

  /** Ends the engine when its users are done. Users that come meanwhile wait and load it again. */
  async unload(): Promise<void> {
    this.#ending ??= this.#end().finally(() => {
      this.#ending = undefined;
    });
    await this.#ending;
  }

  /** Ends the engine now if nobody uses it. @returns false if it is in use, or not loaded */
  async endIfIdle(): Promise<boolean> {
    if (this.#users > 0 || !this.isLoaded) return false;
    await this.unload();
    return true;
  }

  /** Ends the engine and its jobs at once. */
  async stop(): Promise<void> {
    clearTimeout(this.#idleTimer);
    await this.engine.stop();
  }

  async #load(signal: AbortSignal, onLoading: (progress: LoadProgress | undefined) => void): Promise<void> {
    const { engine } = this;
    onLoading(engine.loading);
    const stopListening = engine.onStateChange(() => {
      if (engine.loading !== undefined) onLoading(engine.loading);
    });
    try {
      this.#starting ??= this.#start().finally(() => {
        this.#starting = undefined;
        this.#endWhenIdle();
      });
      await settledOrAborted(this.#starting, signal);
    } finally {
      stopListening();
    }
  }

  async #start(): Promise<void> {
    if (this.#failure !== undefined && performance.now() < this.#failure.until) throw this.#failure.error;
    const grant = await this.#options.grant();
    try {
      await this.engine.start();
      this.#failure = undefined;
      this.#backoff.reset();
    } catch (caught) {
      const error = InferenceError.from(caught);
      this.#failure = { error, until: performance.now() + this.#backoff.next() };
      throw error;
    } finally {
      grant.settle();
    }
  }

  /** Starts the idle timer if nobody uses the engine. */
  #endWhenIdle(): void {
    clearTimeout(this.#idleTimer);
    if (this.#users > 0) return;
    this.#whenUnused?.();
    if (!this.isLoaded) return;
    const { idleMs } = this.#options;
    this.#idleTimer = setTimeout(() => {
      this.#log.info({ idleMs }, 'engine was idle: ended');
      void this.unload();
    }, idleMs);
    // The timer of an idle engine does not keep the server process alive.
    this.#idleTimer.unref();
  }

  async #end(): Promise<void> {
    clearTimeout(this.#idleTimer);
    await this.#starting?.catch(() => undefined);
    if (this.#users > 0) {
      await new Promise<void>((resolve) => {
        this.#whenUnused = resolve;
      });
      this.#whenUnused = undefined;
      clearTimeout(this.#idleTimer);
    }
    await this.engine.stop();
  }
}

function settledOrAborted(promise: Promise<void>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) return abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}

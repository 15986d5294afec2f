import { InferenceError } from '../../errors.js';

/** Longest time that a store may take for an answer before it counts as away, in ms. */
const SILENT_MS = 3000;

/** Notices that a store has stopped answering, long before its commands give up. */
export class AnswerWatch {
  readonly #store: string;
  #inFlight = 0;
  /** Time of the first command that was sent after the last answer; undefined: no command waits for an answer. */
  #askedAt: number | undefined;

  /** @param store its name, for the sentence */
  constructor(store: string) {
    this.#store = store;
  }

  /** Says in a sentence that the store does not answer; undefined if it does. */
  get problem(): string | undefined {
    if (this.#askedAt === undefined) return undefined;
    const ms = performance.now() - this.#askedAt;
    return ms < SILENT_MS ? undefined : `${this.#store} has not answered for ${Math.floor(ms / 1000)} s`;
  }

  /** Watches a command. One that gave up for want of an answer leaves the store away until another is answered. */
  async watch<T>(ask: () => Promise<T>): Promise<T> {
    this.#inFlight += 1;
    this.#askedAt ??= performance.now();
    let isAnswered = true;
    try {
      return await ask();
    } catch (error) {
      isAnswered = !(error instanceof InferenceError && error.reason === 'UNREACHABLE');
      throw error;
    } finally {
      this.#inFlight -= 1;
      if (isAnswered) this.#askedAt = this.#inFlight > 0 ? performance.now() : undefined;
    }
  }
}

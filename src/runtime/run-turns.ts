/** Turns of processes that share a device: a run waits for its turn, and gives it back when it ends. */
export interface RunTurns {
  /** @throws the signal's reason if it is aborted before the turn comes */
  run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T>;
}

export interface TurnMessages {
  /** Asks for the turn. Resolves when it comes. */
  request(): Promise<void>;
  /** Gives the turn back, or gives up waiting for it. */
  end(): void;
}

/** Takes turns by messages. Runs of this process that come together share a turn. */
export class MessagedTurns implements RunTurns {
  readonly #messages: TurnMessages;
  #turn: Promise<void> | undefined;
  /** Runs that have the turn or wait for it. */
  #users = 0;

  constructor(messages: TurnMessages) {
    this.#messages = messages;
  }

  async run<T>(work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
    signal?.throwIfAborted();
    this.#users += 1;
    try {
      this.#turn ??= this.#messages.request();
      await untilAborted(this.#turn, signal);
      return await work();
    } finally {
      this.#users -= 1;
      if (this.#users === 0) {
        this.#turn = undefined;
        this.#messages.end();
      }
    }
  }
}

function untilAborted(turn: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined) return turn;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener('abort', abort, { once: true });
    void turn.then(resolve).finally(() => signal.removeEventListener('abort', abort));
  });
}

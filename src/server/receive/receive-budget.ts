import type { Readable } from 'node:stream';
import { InferenceError } from '../../errors.js';

export interface ReceiveBudgetOptions {
  /** Bytes of unfinished requests over all connections. */
  readonly maxBytes: number;
  /** Unfinished requests above this size wait for one of `maxLarge` slots. */
  readonly largeBytes: number;
  readonly maxLarge: number;
  /** Time from a message's first byte to its last one, in ms; waiting for a slot does not count. */
  readonly timeoutMs: number;
}

/** One gRPC call whose messages are received. */
export interface ReceivedCall {
  readonly stream: Readable;
  /** Looks at what arrived. @returns why the call is refused */
  check(chunk: Uint8Array): InferenceError | undefined;
  refuse(error: InferenceError): void;
}

const RETRY_MS = 1000;

/**
 * Bounds the memory of requests that are on their way, over all connections. grpc-js keeps the parts of a message until it is
 * complete, and knows a limit for one message only.
 */
export class ReceiveBudget {
  readonly #options: ReceiveBudgetOptions;
  readonly #waiting: (() => void)[] = [];
  #bytes = 0;
  #large = 0;

  constructor(options: ReceiveBudgetOptions) {
    this.#options = options;
  }

  /** Bytes of unfinished requests. */
  get bytes(): number {
    return this.#bytes;
  }

  /**
   * Counts what a call receives. `received`: a message is complete. `end`: no more messages matter.
   * Refuses the call if its check fails, if a message is too slow, or if all unfinished requests together are too large.
   */
  track({ stream, check, refuse }: ReceivedCall): { received(): void; end(): void } {
    const { maxBytes, largeBytes, timeoutMs } = this.#options;
    let pending = 0;
    let slot: 'none' | 'waiting' | 'held' = 'none';
    let timer: NodeJS.Timeout | undefined;
    let isOver = false;

    const start = () => {
      timer ??= setTimeout(
        () =>
          fail(
            new InferenceError(
              'DEADLINE_EXCEEDED',
              `the request did not arrive within ${timeoutMs} ms; send it faster`,
            ),
          ),
        timeoutMs,
      ).unref();
    };
    const stopTimer = () => {
      clearTimeout(timer);
      timer = undefined;
    };
    const proceed = () => {
      slot = 'held';
      start();
      stream.resume();
    };
    const release = () => {
      stopTimer();
      this.#bytes -= pending;
      pending = 0;
      if (slot === 'held') this.#releaseLarge();
      if (slot === 'waiting') this.#waiting.splice(this.#waiting.indexOf(proceed), 1);
      slot = 'none';
    };
    const end = () => {
      if (isOver) return;
      isOver = true;
      stream.off('data', count);
      release();
    };
    const fail = (error: InferenceError) => {
      end();
      refuse(error);
    };
    const count = (chunk: Uint8Array) => {
      pending += chunk.length;
      this.#bytes += chunk.length;
      start();
      const refusal = check(chunk);
      if (refusal !== undefined) return fail(refusal);
      if (this.#bytes > maxBytes) {
        return fail(
          new InferenceError(
            'SERVER_BUSY',
            `the server receives ${this.#bytes} bytes of requests at once, its limit is ${maxBytes}; try again later`,
            { retryAfterMs: RETRY_MS },
          ),
        );
      }
      if (pending <= largeBytes || slot !== 'none') return;
      if (this.#large < this.#options.maxLarge) {
        this.#large += 1;
        slot = 'held';
        return;
      }
      // The client is held up by HTTP/2's own flow control.
      slot = 'waiting';
      stopTimer();
      stream.pause();
      this.#waiting.push(proceed);
    };
    stream.on('data', count);
    return { received: release, end };
  }

  #releaseLarge(): void {
    const next = this.#waiting.shift();
    // The slot goes to the next one, or is free.
    if (next === undefined) this.#large -= 1;
    else next();
  }
}

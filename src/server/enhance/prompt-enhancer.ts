import type { RunHandle } from '../../engine/engine.js';
import type { LoadProgress, TextWork } from '../../engine/messages.js';
import type { OnDemandEngine } from '../../engine/on-demand-engine.js';
import type { Enhancement, EnhanceRequest } from '../../enhancer/enhancer.js';
import { InferenceError } from '../../errors.js';
import { assertPolicy } from '../request/policy.js';

/** What a client that found too many prompts waiting is told to wait. */
const RETRY_MS = 2_000;

export interface PromptEnhancerOptions {
  readonly onDemand: OnDemandEngine<TextWork>;
  /** Prompts that are written at the same time. */
  readonly parallel: number;
  /** Most calls of Enhance that wait or run at once; prompts of accepted jobs do not count. */
  readonly limit: number;
  /** From the model's readiness to its last token, in milliseconds. */
  readonly timeoutMs: number;
}

/** What happens to a prompt on its way. */
export interface EnhanceListener {
  /** Prompts before it. */
  onPosition(position: number): void;
  onLoading(progress: LoadProgress | undefined): void;
  /** The model begins; `device` is where. */
  onStarted(device: string): void;
  onText(text: string): void;
}

/** An enhancement, who made it, and how long it had to wait for it. */
export interface Enhanced extends Enhancement {
  readonly model: string;
  readonly device: string;
  readonly waitMs: number;
}

interface Waiting {
  readonly begin: () => void;
  readonly onPosition: (position: number) => void;
}

/** Puts prompts to the language model, some at a time, in the order they came. */
export class PromptEnhancer {
  readonly #options: PromptEnhancerOptions;
  readonly #waiting: Waiting[] = [];
  #running = 0;
  #calls = 0;
  #whenIdle: (() => void) | undefined;

  constructor(options: PromptEnhancerOptions) {
    this.#options = options;
  }

  get onDemand(): OnDemandEngine<TextWork> {
    return this.#options.onDemand;
  }

  get model(): string {
    return this.onDemand.engine.spec.model;
  }

  /** Resolves when no call of Enhance waits or runs. */
  async idle(): Promise<void> {
    while (this.#calls > 0) {
      await new Promise<void>((resolve) => {
        this.#whenIdle = resolve;
      });
    }
  }

  /** @throws InferenceError QUEUE_FULL with a time to try again */
  assertRoom(): void {
    if (this.#calls < this.#options.limit) return;
    throw new InferenceError(
      'QUEUE_FULL',
      `${this.#options.limit} prompts wait or are enhanced, the limit; try again later or raise LIMIT_QUEUE`,
      { retryAfterMs: RETRY_MS },
    );
  }

  /** The same as `enhance`, for a call that `assertRoom` let in, in the same turn. */
  async enhanceCall(...call: Parameters<PromptEnhancer['enhance']>): Promise<Enhanced> {
    this.#calls += 1;
    try {
      return await this.enhance(...call);
    } finally {
      this.#calls -= 1;
      if (this.#calls === 0) this.#whenIdle?.();
    }
  }

  /**
   * @param jobId of the running job, unique among those that run
   * @throws InferenceError the signal's reason; POLICY where what was written may not be shown; DEADLINE_EXCEEDED where the time
   * limit passed; why the model cannot be loaded, or what it failed with
   */
  async enhance(
    jobId: string,
    request: EnhanceRequest,
    signal: AbortSignal,
    listener: EnhanceListener,
  ): Promise<Enhanced> {
    const { onDemand } = this;
    const startedAt = performance.now();
    await this.#turn(signal, listener.onPosition);
    try {
      const lease = await onDemand.acquire(signal, listener.onLoading);
      try {
        const device = onDemand.engine.device ?? '';
        listener.onStarted(device);
        const waitMs = performance.now() - startedAt;
        const enhancement = await this.#write(lease.run({ jobId, request }), signal, listener);
        return { ...enhancement, model: this.model, device, waitMs };
      } finally {
        lease.release();
      }
    } finally {
      this.#running -= 1;
      this.#next();
    }
  }

  async #write(run: RunHandle<TextWork>, signal: AbortSignal, { onText }: EnhanceListener): Promise<Enhancement> {
    const { timeoutMs } = this.#options;
    const cancel = () => run.cancel(InferenceError.from(signal.reason));
    const timer = setTimeout(() => {
      run.cancel(
        new InferenceError(
          'DEADLINE_EXCEEDED',
          `the prompt was not enhanced within ${timeoutMs} ms; ask for fewer max_tokens or raise ENHANCE_TIMEOUT_MS`,
        ),
      );
    }, timeoutMs);
    if (signal.aborted) cancel();
    signal.addEventListener('abort', cancel, { once: true });
    try {
      let written = '';
      for await (const { text } of run.events) {
        written += text;
        // Nothing is shown before it was looked at, in one piece with what stands before it.
        assertWritten(written);
        onText(text);
      }
      const enhancement = await run.result;
      assertWritten(enhancement.prompt);
      return enhancement;
    } catch (error) {
      run.cancel(InferenceError.from(error));
      throw error;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', cancel);
    }
  }

  /** Resolves when it is this prompt's turn; the caller calls `#next` when it is done. */
  #turn(signal: AbortSignal, onPosition: (position: number) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const abort = () => {
        const place = this.#waiting.indexOf(waiting);
        if (place < 0) return;
        this.#waiting.splice(place, 1);
        this.#tellPositions(place);
        reject(signal.reason);
      };
      const begin = () => {
        signal.removeEventListener('abort', abort);
        this.#running += 1;
        resolve();
      };
      const waiting = { begin, onPosition };
      if (signal.aborted) return reject(signal.reason);
      signal.addEventListener('abort', abort, { once: true });
      this.#waiting.push(waiting);
      this.#tellPositions(this.#waiting.length - 1);
      this.#next();
    });
  }

  #next(): void {
    if (this.#running >= this.#options.parallel) return;
    const first = this.#waiting.shift();
    if (first === undefined) return;
    first.begin();
    this.#tellPositions(0);
  }

  #tellPositions(from: number): void {
    for (const [place, { onPosition }] of this.#waiting.entries()) if (place >= from) onPosition(place + this.#running);
  }
}

function assertWritten(text: string): void {
  assertPolicy(text, 'the enhanced prompt');
}

import { setImmediate } from 'node:timers/promises';
import type { RunHandle } from '../../engine/engine.js';
import type { LoadProgress, TextWork } from '../../engine/messages.js';
import type { OnDemandEngine } from '../../engine/on-demand-engine.js';
import type { Enhancement, EnhanceRequest } from '../../enhancer/enhancer.js';
import { filledTexts } from '../../enhancer/template.js';
import { InferenceError } from '../../errors.js';
import { WrittenText } from '../../policy/sexualises-minors.js';
import { FairQueue } from '../jobs/fair-queue.js';
import type { Job } from '../jobs/job.js';
import { type Policy, subjectOfJob } from '../request/policy.js';

/** Retry delay that a client gets when too many prompts wait, in ms. */
const RETRY_MS = 2_000;

export interface PromptEnhancerOptions {
  readonly onDemand: OnDemandEngine<TextWork>;
  /** Number of prompts that are written at the same time. */
  readonly parallel: number;
  /** Largest number of Enhance calls that wait or run. Prompts of accepted jobs do not count. */
  readonly limit: number;
  readonly policy: Policy;
  /** Time limit from the model's readiness to the last token, in ms. */
  readonly timeoutMs: number;
}

/** Receives what happens to a prompt until it is enhanced. */
export interface EnhanceListener {
  /** `position`: number of prompts before it. */
  onPosition(position: number): void;
  onLoading(progress: LoadProgress | undefined): void;
  /** The model starts to write on `device`. */
  onStarted(device: string): void;
  onText(text: string): void;
}

/** An enhancement, its model and device, and the time that it waited. */
export interface Enhanced extends Enhancement {
  readonly model: string;
  readonly device: string;
  readonly waitMs: number;
}

/** The job whose prompt is enhanced. */
type EnhancedJob = Pick<Job, 'id' | 'key' | 'owner'>;

interface Waiting {
  readonly begin: () => void;
  readonly onPosition: (position: number) => void;
}

/** Sends prompts to the language model, `parallel` at a time. Owners take turns. */
export class PromptEnhancer {
  readonly #options: PromptEnhancerOptions;
  readonly #waiting = new FairQueue<Waiting>();
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

  /** Prompts that wait or are written. */
  get depth() {
    return { model: this.model, preparing: 0, waiting: this.#waiting.length, running: this.#running };
  }

  /** Resolves when no Enhance call waits or runs. */
  async idle(): Promise<void> {
    while (this.#calls > 0) {
      await new Promise<void>((resolve) => {
        this.#whenIdle = resolve;
      });
    }
  }

  /** @throws InferenceError QUEUE_FULL with a retry delay */
  assertRoom(): void {
    if (this.#calls < this.#options.limit) return;
    throw new InferenceError(
      'QUEUE_FULL',
      `${this.#options.limit} prompts wait or are enhanced, the limit; try again later or raise LIMIT_QUEUE`,
      { retryAfterMs: RETRY_MS },
    );
  }

  /** `enhance` for an Enhance call. Call `assertRoom` before it, in the same turn of the event loop. */
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
   * @throws InferenceError the signal's reason; POLICY if the template with the prompt, or the text, is refused; DEADLINE_EXCEEDED
   *   after the time limit;
   * the model's load failure or error
   */
  async enhance(
    job: EnhancedJob,
    request: EnhanceRequest,
    signal: AbortSignal,
    listener: EnhanceListener,
  ): Promise<Enhanced> {
    const { onDemand } = this;
    const startedAt = performance.now();
    // An operator's template may say what the prompt leaves out. Each format is a text of its own.
    for (const text of filledTexts(onDemand.engine.spec.source.template, request.prompt)) {
      this.#options.policy.assert({ positive: [text] }, 'the prompt', subjectOfJob(job));
    }
    await this.#turn(job, signal, listener.onPosition);
    try {
      const lease = await onDemand.acquire(signal, listener.onLoading);
      try {
        const device = onDemand.engine.device ?? '';
        listener.onStarted(device);
        const waitMs = performance.now() - startedAt;
        const enhancement = await this.#write(lease.run({ jobId: job.key, request }), { job, signal }, listener);
        return { ...enhancement, model: this.model, device, waitMs };
      } finally {
        lease.release();
      }
    } finally {
      this.#running -= 1;
      this.#next();
    }
  }

  async #write(
    run: RunHandle<TextWork>,
    { job, signal }: { readonly job: EnhancedJob; readonly signal: AbortSignal },
    { onText }: EnhanceListener,
  ): Promise<Enhancement> {
    const { timeoutMs, policy } = this.#options;
    const subject = subjectOfJob(job);
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
      const written = new WrittenText();
      for await (const { text } of run.events) {
        // Check the whole text so far before any of it is sent: a refused word may arrive in two parts.
        const refusal = written.add(text);
        if (refusal !== undefined) throw policy.refused(refusal, 'the enhanced prompt', subject);
        onText(text);
        // Checks take time: let other calls, and a cancel of this one, have their turn.
        await setImmediate();
      }
      const enhancement = await run.result;
      const texts = { positive: [enhancement.prompt] };
      policy.assert(texts, 'the enhanced prompt', subject);
      await policy.moderate(texts, { what: 'the enhanced prompt', subject, signal });
      return enhancement;
    } catch (error) {
      run.cancel(InferenceError.from(error));
      throw error;
    } finally {
      clearTimeout(timer);
      signal.removeEventListener('abort', cancel);
    }
  }

  /** Resolves when it is this prompt's turn. The caller calls `#next` when it is done. */
  #turn({ owner }: EnhancedJob, signal: AbortSignal, onPosition: (position: number) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const abort = () => {
        const place = this.#waiting.remove(waiting);
        if (place < 0) return;
        this.#reportPositions(place);
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
      this.#reportPositions(this.#waiting.add(waiting, owner));
      this.#next();
    });
  }

  #next(): void {
    if (this.#running >= this.#options.parallel) return;
    const [first] = this.#waiting;
    if (first === undefined) return;
    this.#waiting.take(first);
    first.begin();
    this.#reportPositions(0);
  }

  #reportPositions(from: number): void {
    for (const [i, { onPosition }] of this.#waiting.slice(from).entries()) onPosition(from + i + this.#running);
  }
}

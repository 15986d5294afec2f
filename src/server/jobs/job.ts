import type { InferenceError } from '../../errors.js';
import type { JobEvent } from '../../gen/darkroom/v1/event.js';
import {
  type Asset,
  type Job as JobMessage,
  type JobMetadata,
  JobState,
  type JobType,
} from '../../gen/darkroom/v1/job.js';

export type EventBody = NonNullable<JobEvent['event']>;

export interface NewJob {
  readonly id: string;
  /** Name of the token that starts it; empty for a caller without a name. */
  readonly owner: string;
  readonly requestHash: string;
  readonly jobType: JobType;
  readonly model: string;
}

/** Key of a job among those of all owners: each one chooses its ids. */
export function jobKey(owner: string, id: string): string {
  // Neither names nor ids have a slash.
  return owner === '' ? id : `${owner}/${id}`;
}

/** One accepted job: its state and all its events from the first one, for any number of watchers. */
export class Job {
  readonly id: string;
  readonly owner: string;
  readonly requestHash: string;
  readonly jobType: JobType;
  readonly model: string;
  readonly createTime = new Date();
  /** Its place among all jobs that the server was given, from 1 on: set by the store. */
  number = 0;
  /** Aborted with the InferenceError that ends the job. */
  readonly #abort = new AbortController();
  /** Indexed by sequence number minus 1. Previews of an ended job are dropped and leave gaps. */
  readonly #events: (JobEvent | undefined)[] = [];
  readonly #wakers = new Set<() => void>();
  readonly #assets: Asset[] = [];
  #watchers = 0;
  #wasFetched = false;
  #state: JobState = JobState.JOB_STATE_QUEUED;
  #position: number | undefined;
  #fraction = 0;
  #startTime: Date | undefined;
  #endTime: Date | undefined;
  #metadata: JobMetadata | undefined;
  #error: InferenceError | undefined;
  #heldBytes = 0;

  constructor({ id, owner, requestHash, jobType, model }: NewJob) {
    this.id = id;
    this.owner = owner;
    this.requestHash = requestHash;
    this.jobType = jobType;
    this.model = model;
  }

  /** Key of the job on this server. The id is its owner's choice. */
  get key(): string {
    return jobKey(this.owner, this.id);
  }

  get state(): JobState {
    return this.#state;
  }

  get hasEnded(): boolean {
    return this.#endTime !== undefined;
  }

  /** The failure; undefined unless the job failed or was cancelled. */
  get error(): InferenceError | undefined {
    return this.#error;
  }

  get startTime(): Date | undefined {
    return this.#startTime;
  }

  /** Fraction done, 0 to 1. */
  get fraction(): number {
    return this.#fraction;
  }

  /** Position in the queue as it was reported last. */
  get reportedPosition(): number | undefined {
    return this.#position;
  }

  /** Number of streams that follow the job now. */
  get watchers(): number {
    return this.#watchers;
  }

  /** True once a stream that fetches the job has sent its last event. */
  get wasFetched(): boolean {
    return this.#wasFetched;
  }

  get endTime(): Date | undefined {
    return this.#endTime;
  }

  /** Memory that the job holds, in bytes: its files, events and texts, and what `inputBytes` counts. */
  get heldBytes(): number {
    return this.#heldBytes + this.inputBytes;
  }

  /** Memory of what the job was started with, in bytes. */
  get inputBytes(): number {
    return 0;
  }

  /** Frees what an ended job does not need any more. */
  releaseInputs(): void {}

  /** Metadata of a completed job. */
  get metadata(): JobMetadata | undefined {
    return this.#metadata;
  }

  get assets(): readonly Asset[] {
    return this.#assets;
  }

  /** Aborted with the reason when the job is cancelled. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  cancel(reason: InferenceError): void {
    if (!this.hasEnded) this.#abort.abort(reason);
  }

  /** Records an event and wakes the watchers. */
  emit(event: EventBody): void {
    if (this.hasEnded) return;
    switch (event.$case) {
      case 'queued':
        this.#state = JobState.JOB_STATE_QUEUED;
        this.#position = event.value.position;
        break;
      case 'started':
        this.#state = JobState.JOB_STATE_RUNNING;
        this.#startTime = new Date();
        break;
      case 'progress':
        this.#fraction = event.value.fraction;
        break;
      case 'assetChunk':
        if (event.value.asset) this.#assets.push(event.value.asset);
        break;
      case 'completed':
        this.#end(JobState.JOB_STATE_COMPLETED);
        this.#fraction = 1;
        this.#metadata = event.value.metadata;
    }
    this.#record(event);
  }

  /** Ends the job with an error: its last event. */
  fail(error: InferenceError): void {
    if (this.hasEnded) return;
    const isCancelled = error.reason === 'CANCELLED' || error.reason === 'DEADLINE_EXCEEDED';
    this.#end(isCancelled ? JobState.JOB_STATE_CANCELLED : JobState.JOB_STATE_FAILED);
    this.#error = error;
    this.#record({ $case: 'failed', value: { error: errorMessage(error) } });
  }

  /**
   * Yields the events after a sequence number, past and future ones. Ends after the job's last event.
   * @param fetches true for a call that the job is for; false for one that only looks at it. Omitted: false
   */
  async *watch(
    afterSequence: number,
    signal: AbortSignal,
    { fetches = false }: { readonly fetches?: boolean } = {},
  ): AsyncGenerator<JobEvent, void, undefined> {
    this.#watchers += 1;
    try {
      for (let next = Math.max(0, afterSequence); ; ) {
        if (next < this.#events.length) {
          const event = this.#events[next];
          next += 1;
          if (event !== undefined) yield event;
          // Its client may leave as soon as it has the last one.
          if (fetches && this.hasEnded && next === this.#events.length) this.#wasFetched = true;
        } else if (this.hasEnded) {
          return;
        } else {
          await this.#nextEvent(signal);
        }
        if (signal.aborted) return;
      }
    } finally {
      this.#watchers -= 1;
    }
  }

  toMessage(): JobMessage {
    return {
      jobId: this.id,
      state: this.#state,
      jobType: this.jobType,
      model: this.model,
      lastSequence: BigInt(this.#events.length),
      queuePosition: this.#state === JobState.JOB_STATE_QUEUED ? (this.#position ?? 0) : 0,
      fraction: this.#fraction,
      createTime: this.createTime,
      startTime: this.#startTime,
      endTime: this.#endTime,
      assets: this.#assets,
      metadata: this.#metadata,
      error: this.#error && errorMessage(this.#error),
      owner: this.owner,
    };
  }

  #end(state: JobState): void {
    this.#state = state;
    this.#endTime = new Date();
    // Previews are only useful while the job runs, and would take as much memory as its files.
    for (const [i, event] of this.#events.entries()) {
      if (event?.event?.$case !== 'preview') continue;
      this.#heldBytes -= sizeOf(event.event);
      this.#events[i] = undefined;
    }
  }

  #record(event: EventBody): void {
    this.#heldBytes += sizeOf(event);
    this.#events.push({ jobId: this.id, sequence: BigInt(this.#events.length + 1), time: new Date(), event });
    for (const wake of this.#wakers) wake();
  }

  #nextEvent(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#wakers.delete(wake);
        signal.removeEventListener('abort', wake);
        resolve();
      };
      this.#wakers.add(wake);
      signal.addEventListener('abort', wake);
    });
  }
}

/** Memory of an event without its texts and files, in bytes: a few objects of V8. */
const EVENT_BYTES = 512;

/** Memory of an event, in bytes. */
function sizeOf(event: EventBody): number {
  switch (event.$case) {
    case 'assetChunk':
      return EVENT_BYTES + event.value.data.length;
    case 'preview':
      return EVENT_BYTES + event.value.image.length;
    case 'textDelta':
      return EVENT_BYTES + 2 * event.value.text.length;
    case 'started':
    case 'completed': {
      const {
        originalPrompt = '',
        enhancedPrompt = '',
        negativePrompt = '',
        weights = '',
      } = event.value.metadata ?? {};
      return EVENT_BYTES + 2 * (originalPrompt.length + enhancedPrompt.length + negativePrompt.length + weights.length);
    }
    default:
      return EVENT_BYTES;
  }
}

function errorMessage(error: InferenceError): { reason: string; message: string; retryable: boolean } {
  return { reason: error.reason, message: error.message, retryable: error.retryable };
}

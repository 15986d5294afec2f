import type { Engine } from '../../engine/engine.js';
import type { EngineTimings, TextWork } from '../../engine/messages.js';
import type { ErrorReason, InferenceError } from '../../errors.js';
import type { JobTypes } from '../../job-types.js';
import type { Logger } from '../../log.js';
import { dispatchTo } from '../../observe/dispatch.js';
import type { EnhancementOutcome } from '../enhance/enhancement.js';
import type { GenerateJob } from '../jobs/generate-job.js';
import type { Job } from '../jobs/job.js';

/** A call that a handler serves. Observers keep what they know of it by this object. */
export interface ServedCall {
  /** `/package.Service/Method`. */
  readonly path: string;
  /** The client's `traceparent` in the metadata. */
  readonly traceparent: string | undefined;
}

export interface CallEnd {
  /** What the client got. Omitted: the call went well. */
  readonly error?: InferenceError | undefined;
  /** True if it failed before its first response. */
  readonly isRefused: boolean;
}

/** What a server reports about its work. Methods return at once and do not throw. */
export interface ServerObserver {
  callStarted(call: ServedCall): void;
  callEnded(call: ServedCall, end: CallEnd): void;
  /** A call was refused before a handler got it. */
  callRefused(path: string, reason: ErrorReason): void;
  /** @param bytes of one encoded response */
  responseSent(path: string, bytes: number): void;
  jobAccepted(job: Job, call: ServedCall): void;
  /** @param startedMs when the enhancement began, milliseconds since 1970 */
  promptEnhanced(job: Job, outcome: EnhancementOutcome, startedMs: number): void;
  /** Jobs go to their engine together. A job whose batch failed starts a second time. */
  jobsStarted(jobs: readonly Job[]): void;
  /** The engine of this name completed a job. */
  runEnded(job: GenerateJob, timings: EngineTimings, engine: string): void;
  /** Called once for every job, after its last event. */
  jobEnded(job: Job): void;
}

/** Jobs of one model; for a language model, the prompts. */
export interface QueueDepth {
  readonly model: string;
  /** Their references or prompts are being prepared. */
  readonly preparing: number;
  readonly waiting: number;
  readonly running: number;
}

/** What observers may look at. */
export interface ObservedServer {
  readonly engines: readonly Engine[];
  /** The engine of the language model. Undefined: the server has none. */
  readonly textEngine: Engine<TextWork> | undefined;
  readonly jobTypes: JobTypes;
  depths(): readonly QueueDepth[];
}

/** The engines of a server, that of the language model last. */
export function enginesOf({ engines, textEngine }: ObservedServer): readonly (Engine | Engine<TextWork>)[] {
  return textEngine === undefined ? engines : [...engines, textEngine];
}

export type CreateServerObserver = (server: ObservedServer) => Partial<ServerObserver>;

const METHODS = [
  'callStarted',
  'callEnded',
  'callRefused',
  'responseSent',
  'jobAccepted',
  'promptEnhanced',
  'jobsStarted',
  'runEnded',
  'jobEnded',
] as const satisfies readonly (keyof ServerObserver)[];

/** One observer for several. */
export function serverObserver(observers: readonly Partial<ServerObserver>[], log: Logger): ServerObserver {
  return dispatchTo<ServerObserver>(observers, METHODS, log);
}

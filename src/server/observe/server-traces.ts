import type { EngineTimings } from '../../engine/messages.js';
import { statusCodes } from '../../errors.js';
import { jobTypeOfValue } from '../../job-types.js';
import type { OpenSpan, Traces } from '../../observe/traces.js';
import type { EnhancementOutcome } from '../enhance/enhancement.js';
import { GenerateJob } from '../jobs/generate-job.js';
import type { Job } from '../jobs/job.js';
import { phasesOf } from './server-metrics.js';
import type { CallEnd, ObservedServer, ServedCall, ServerObserver } from './server-observer.js';
import type { TraceIds } from './trace-ids.js';

/** Calls that begin a trace of their own. Others, which bridges and consoles repeat, are traced if their client is. */
const BEGINS_TRACE = /\/(Generate|Enhance)$/;

/**
 * Spans of a server: the call, under it the job, and under that its wait, its enhancement, its run and the phases of the run.
 * Attributes: https://opentelemetry.io/docs/specs/semconv/rpc/ and https://opentelemetry.io/docs/specs/semconv/gen-ai/
 */
export class ServerTraces implements Partial<ServerObserver> {
  readonly #traces: Traces;
  readonly #server: ObservedServer;
  readonly #traceIds: TraceIds;
  readonly #calls = new WeakMap<ServedCall, OpenSpan>();
  readonly #jobs = new WeakMap<Job, OpenSpan>();
  readonly #starts = new WeakMap<Job, number>();

  constructor(traces: Traces, server: ObservedServer, traceIds: TraceIds) {
    this.#traces = traces;
    this.#server = server;
    this.#traceIds = traceIds;
  }

  callStarted(call: ServedCall): void {
    const { path, traceparent } = call;
    if (traceparent === undefined && !BEGINS_TRACE.test(path)) return;
    const [service = '', method = ''] = path.slice(1).split('/');
    const attributes = { 'rpc.system': 'grpc', 'rpc.service': service, 'rpc.method': method };
    this.#calls.set(call, this.#traces.start(path.slice(1), { kind: 'server', parent: traceparent, attributes }));
  }

  callEnded(call: ServedCall, { error }: CallEnd): void {
    this.#calls.get(call)?.end({
      attributes: { 'rpc.grpc.status_code': error === undefined ? 0 : statusCodes[error.status] },
      errorType: error?.reason,
    });
  }

  jobAccepted(job: Job, call: ServedCall): void {
    const parent = this.#calls.get(call)?.traceparent ?? call.traceparent;
    const { id, model } = job;
    const type = jobTypeOfValue(this.#server.jobTypes, job.jobType);
    const span = this.#traces.start('job', {
      parent,
      startMs: job.createTime.getTime(),
      attributes: {
        'darkroom.job.id': id,
        'darkroom.job.type': type?.name,
        'gen_ai.request.model': model,
        'gen_ai.output.type': outputType(job),
        ...(this.#traces.includesPrompts && job instanceof GenerateJob && { 'darkroom.prompt': job.request.prompt }),
      },
    });
    this.#jobs.set(job, span);
    this.#traceIds.set(job, span.traceparent);
  }

  promptEnhanced(job: Job, outcome: EnhancementOutcome, startMs: number): void {
    const isDone = outcome.strategy === 'qwen';
    this.#traces.record(
      'enhance',
      {
        parent: this.#jobs.get(job)?.traceparent,
        startMs,
        attributes: {
          'darkroom.enhancement.strategy': outcome.strategy,
          'gen_ai.operation.name': 'text_completion',
          ...(isDone && {
            'gen_ai.request.model': outcome.model,
            'gen_ai.usage.input_tokens': outcome.promptTokens,
            'gen_ai.usage.output_tokens': outcome.newTokens,
            'darkroom.enhancement.wait_seconds': outcome.waitMs / 1000,
            ...(this.#traces.includesPrompts && { 'darkroom.enhanced_prompt': outcome.prompt }),
          }),
        },
      },
      isDone ? undefined : { errorType: 'fallback' },
    );
  }

  jobsStarted(jobs: readonly Job[]): void {
    const now = Date.now();
    for (const job of jobs) {
      // A job that runs for the second time has waited for it since its first start.
      const startMs = this.#starts.get(job) ?? job.createTime.getTime();
      this.#starts.set(job, now);
      this.#traces.record('queue', { parent: this.#jobs.get(job)?.traceparent, startMs }, { endMs: now });
    }
  }

  /** The engine reports the time of each phase, not when it was: the spans of phases that took turns are laid end to end. */
  runEnded(job: GenerateJob, timings: EngineTimings): void {
    const startMs = this.#starts.get(job) ?? job.createTime.getTime();
    const { width, height, steps, scheduler, seeds } = job.request;
    const run = this.#traces.start('run', {
      parent: this.#jobs.get(job)?.traceparent,
      startMs,
      attributes: {
        'darkroom.batch_images': timings.batchImages,
        'darkroom.images': seeds.length,
        'darkroom.width': width,
        'darkroom.height': height,
        'darkroom.steps': steps,
        'darkroom.scheduler': scheduler,
        'darkroom.forwards': timings.forwards,
      },
    });
    let at = startMs;
    for (const [phase, ms] of phasesOf(timings)) {
      if (ms === 0) continue;
      this.#traces.record(phase, { parent: run.traceparent, startMs: at }, { endMs: at + ms });
      at += ms;
    }
    run.end();
  }

  jobEnded(job: Job): void {
    this.#jobs.get(job)?.end({ errorType: job.error?.reason });
  }
}

function outputType(job: Job): string {
  if (!(job instanceof GenerateJob)) return 'text';
  return job.plan.output.video === undefined ? 'image' : 'video';
}

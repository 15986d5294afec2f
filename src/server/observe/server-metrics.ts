import type { Engine, EngineState, KillReason } from '../../engine/engine.js';
import { type EngineTimings, engineName, type Work } from '../../engine/messages.js';
import type { ErrorReason } from '../../errors.js';
import { InferenceServiceService } from '../../gen/darkroom/v1/inference_service.js';
import { JobState } from '../../gen/darkroom/v1/job.js';
import { JobServiceService } from '../../gen/darkroom/v1/job_service.js';
import { ModelServiceService } from '../../gen/darkroom/v1/model_service.js';
import { jobTypeOfValue } from '../../job-types.js';
import type { MetricsRegistry, TracedHistogram } from '../../observe/metrics-registry.js';
import { firstStep } from '../../pipelines/common/batching.js';
import { plannedForwards } from '../../pipelines/common/guidance.js';
import type { DeviceMemory } from '../../runtime/device-memory.js';
import type { EnhancementOutcome } from '../enhance/enhancement.js';
import { GenerateJob } from '../jobs/generate-job.js';
import type { Job } from '../jobs/job.js';
import { CardMemory } from './card-memory.js';
import {
  type CallEnd,
  enginesOf,
  type ObservedServer,
  type ServedCall,
  type ServerObserver,
} from './server-observer.js';
import type { TraceIds } from './trace-ids.js';

const STATES: readonly EngineState[] = ['starting', 'ready', 'busy', 'restarting', 'failed', 'stopped'];
const OUTCOMES: Readonly<Partial<Record<JobState, string>>> = {
  [JobState.JOB_STATE_COMPLETED]: 'completed',
  [JobState.JOB_STATE_FAILED]: 'failed',
  [JobState.JOB_STATE_CANCELLED]: 'cancelled',
};
/** From a job of a tiny model to a video of many minutes, in seconds. */
const JOB_SECONDS = [0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1280];
const STEP_SECONDS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32];
const METHODS = new Map(
  [InferenceServiceService, JobServiceService, ModelServiceService].flatMap((service) =>
    Object.values(service as Readonly<Record<string, { readonly path: string }>>).map(({ path }) => [
      path,
      path.slice(path.lastIndexOf('/') + 1),
    ]),
  ),
);

/**
 * Metrics of a server. Labels have few values: names of models and methods that it serves, job types, reasons of
 * errors; never a prompt, a user or a job id.
 */
export class ServerMetrics implements Partial<ServerObserver> {
  readonly #server: ObservedServer;
  readonly #traceIds: TraceIds;
  readonly #metrics: ReturnType<typeof createMetrics>;
  readonly #started = new WeakSet<Job>();
  /** Builds and evictions of each engine so far, which begin again with its process. */
  readonly #variants = new Map<string, { builds: number; evictions: number }>();

  constructor(registry: MetricsRegistry, server: ObservedServer, traceIds: TraceIds) {
    this.#server = server;
    this.#traceIds = traceIds;
    this.#metrics = createMetrics(registry, server);
    for (const engine of enginesOf(server)) this.#countLoads(engine);
  }

  callStarted({ path }: ServedCall): void {
    this.#metrics.openCalls.inc({ method: methodOf(path) });
  }

  callEnded({ path }: ServedCall, { error, isRefused }: CallEnd): void {
    this.#metrics.openCalls.dec({ method: methodOf(path) });
    if (error !== undefined && isRefused) this.callRefused(path, error.reason);
  }

  callRefused(path: string, reason: ErrorReason): void {
    this.#metrics.refused.inc({ method: methodOf(path), reason });
  }

  responseSent(path: string, bytes: number): void {
    this.#metrics.sentBytes.inc({ method: methodOf(path) }, bytes);
  }

  promptEnhanced(_job: Job, outcome: EnhancementOutcome, startedMs: number): void {
    this.#metrics.enhancements.inc({ outcome: outcome.strategy });
    this.#metrics.enhanceSeconds.observe((Date.now() - startedMs) / 1000);
  }

  jobsStarted(jobs: readonly Job[]): void {
    for (const job of jobs) {
      // A job that runs for the second time waited once.
      if (this.#started.has(job)) continue;
      this.#started.add(job);
      const seconds = (Date.now() - job.createTime.getTime()) / 1000;
      this.#observe(this.#metrics.waitSeconds, job, { model: job.model }, seconds);
    }
    const images = jobs.reduce((sum, job) => sum + (job instanceof GenerateJob ? job.request.seeds.length : 0), 0);
    if (images > 0) this.#metrics.batchImages.observe({ model: jobs[0]?.model ?? '' }, images);
  }

  runEnded(job: GenerateJob, timings: EngineTimings, engine: string): void {
    const { model, request } = job;
    const { phaseSeconds, stepSeconds, forwards, forwardsSaved, promptCache } = this.#metrics;
    for (const [phase, ms] of phasesOf(timings)) {
      if (ms > 0) this.#observe(phaseSeconds, job, { model, phase }, ms / 1000);
    }
    const steps = request.steps - firstStep(request);
    if (steps > 0) this.#observe(stepSeconds, job, { model }, timings.denoiseMs / 1000 / steps);
    const full = steps * (request.guidanceScale > 1 ? 2 : 1);
    const run = timings.forwards ?? plannedForwards(request);
    forwards.inc({ model }, run * request.seeds.length);
    forwardsSaved.inc({ model }, Math.max(0, full - run) * request.seeds.length);
    const { hits = 0, misses = 0 } = timings.promptCache ?? {};
    promptCache.inc({ model, result: 'hit' }, hits);
    promptCache.inc({ model, result: 'miss' }, misses);
    this.#countVariants(model, timings, engine);
  }

  jobEnded(job: Job): void {
    const { model, state, error } = job;
    const type = jobTypeOfValue(this.#server.jobTypes, job.jobType)?.name ?? 'none';
    const outcome = OUTCOMES[state] ?? 'failed';
    this.#metrics.jobs.inc({ type, model, outcome, reason: error?.reason ?? 'none' });
    const seconds = (Date.now() - job.createTime.getTime()) / 1000;
    this.#observe(this.#metrics.jobSeconds, job, { type, model, outcome }, seconds);
  }

  /** Observes a value, with the trace of its job as the exemplar. */
  #observe(histogram: TracedHistogram, job: Job, labels: Readonly<Record<string, string>>, value: number): void {
    const traceId = this.#traceIds.of(job);
    histogram.observe({ labels, value, ...(traceId !== undefined && { exemplarLabels: { trace_id: traceId } }) });
  }

  #countVariants(model: string, { variants }: EngineTimings, engine: string): void {
    const { builds, evictions = 0 } = variants;
    const before = this.#variants.get(engine) ?? { builds: 0, evictions: 0 };
    const since = (now: number, then: number) => (now < then ? now : now - then);
    this.#metrics.variants.inc({ model, event: 'built' }, since(builds, before.builds));
    this.#metrics.variants.inc({ model, event: 'evicted' }, since(evictions, before.evictions));
    this.#variants.set(engine, { builds, evictions });
  }

  #countLoads(engine: Watched): void {
    const { model } = engine.spec;
    const { loads, loadSeconds } = this.#metrics;
    let startedAt = performance.now();
    let before = engine.state;
    engine.onStateChange((state) => {
      const last = before;
      before = state;
      if (state === last) return;
      if (state === 'starting' || state === 'restarting') startedAt = performance.now();
      const wasLoading = last === 'starting' || last === 'restarting';
      if (!wasLoading || (state !== 'ready' && state !== 'failed')) return;
      loads.inc({ model, result: state === 'ready' ? 'loaded' : 'failed' });
      if (state === 'ready') loadSeconds.observe({ model }, (performance.now() - startedAt) / 1000);
    });
  }
}

type Watched = Pick<Engine, 'state' | 'onStateChange'> & { readonly spec: { readonly model: string } };

function methodOf(path: string): string {
  return METHODS.get(path) ?? 'other';
}

/** The phases of a run with their times in ms, in their order. */
export function phasesOf(timings: EngineTimings): readonly (readonly [phase: string, ms: number])[] {
  const { buildMs, encodeMs, denoiseMs, decodeMs, mediaMs } = timings;
  return [
    ['build', buildMs],
    ['encode', encodeMs],
    ['denoise', denoiseMs],
    ['decode', decodeMs],
    ['media', mediaMs],
  ];
}

function createMetrics(registry: MetricsRegistry, server: ObservedServer) {
  const engines = () => enginesOf(server);
  registry.gauge({
    name: 'darkroom_queue_jobs',
    help: 'Jobs that were accepted and have not ended.',
    labels: ['model', 'state'],
    collect() {
      for (const { model, ...counts } of server.depths()) {
        for (const [state, count] of Object.entries(counts)) this.set({ model, state }, count);
      }
    },
  });
  registry.gauge({
    name: 'darkroom_engine_state',
    help: '1 for the state that the engine is in, otherwise 0.',
    labels: ['model', 'engine', 'state'],
    collect() {
      this.reset();
      for (const { spec, state: current } of engines()) {
        for (const state of STATES) this.set({ ...namesOf(spec), state }, state === current ? 1 : 0);
      }
    },
  });
  registry.gauge({
    name: 'darkroom_engine_resident_bytes',
    help: 'Resident memory of the engine process; 0 if there is none.',
    labels: ['model', 'engine'],
    collect() {
      this.reset();
      for (const { spec, residentBytes = 0 } of engines()) this.set(namesOf(spec), residentBytes);
    },
  });
  const card = new CardMemory(server);
  const cardGauge = (name: string, help: string, measure: (card: DeviceMemory) => number) =>
    registry.gauge({
      name,
      help,
      async collect() {
        this.reset();
        const measured = await card.measure();
        if (measured === undefined) this.remove();
        else this.set(measure(measured));
      },
    });
  cardGauge(
    'darkroom_card_used_bytes',
    'Memory of the NVIDIA card that any process uses; absent without a card.',
    ({ totalBytes, freeBytes }) => totalBytes - freeBytes,
  );
  cardGauge(
    'darkroom_card_total_bytes',
    'Memory of the NVIDIA card; absent without a card.',
    ({ totalBytes }) => totalBytes,
  );
  const counted = (
    name: string,
    help: string,
    rows: () => readonly (readonly [Readonly<Record<string, string>>, number])[],
    labels: readonly string[],
  ) =>
    registry.counter({
      name,
      help,
      labels,
      collect() {
        this.reset();
        for (const [row, count] of rows()) this.inc(row, count);
      },
    });
  counted(
    'darkroom_engine_restarts_total',
    'Engine processes that were started after the first one.',
    () => engines().map(({ spec, restarts }) => [namesOf(spec), restarts] as const),
    ['model', 'engine'],
  );
  counted(
    'darkroom_engine_kills_total',
    'Engine processes that the server killed.',
    () =>
      engines().flatMap(({ spec, kills }) =>
        (Object.entries(kills) as [KillReason, number][]).map(
          ([reason, count]) => [{ ...namesOf(spec), reason }, count] as const,
        ),
      ),
    ['model', 'engine', 'reason'],
  );
  return {
    jobs: registry.counter({
      name: 'darkroom_jobs_total',
      help: 'Jobs that ended.',
      labels: ['type', 'model', 'outcome', 'reason'],
    }),
    jobSeconds: registry.tracedHistogram({
      name: 'darkroom_job_seconds',
      help: 'Time from the acceptance of a job to its end.',
      labels: ['type', 'model', 'outcome'],
      buckets: JOB_SECONDS,
    }),
    waitSeconds: registry.tracedHistogram({
      name: 'darkroom_queue_wait_seconds',
      help: 'Time from the acceptance of a job to its start.',
      labels: ['model'],
      buckets: JOB_SECONDS,
    }),
    phaseSeconds: registry.tracedHistogram({
      name: 'darkroom_phase_seconds',
      help: 'Time of a completed job in each phase. Jobs of a batch share their time: it counts for each of them.',
      labels: ['model', 'phase'],
      buckets: JOB_SECONDS,
    }),
    stepSeconds: registry.tracedHistogram({
      name: 'darkroom_step_seconds',
      help: 'Mean time of a denoising step of a completed job.',
      labels: ['model'],
      buckets: STEP_SECONDS,
    }),
    batchImages: registry.histogram({
      name: 'darkroom_batch_images',
      help: 'Images of the jobs that an engine got together.',
      labels: ['model'],
      buckets: [1, 2, 3, 4, 6, 8],
    }),
    forwards: registry.counter({
      name: 'darkroom_forwards_total',
      help: 'Runs of the denoiser, counted per image and text.',
      labels: ['model'],
    }),
    forwardsSaved: registry.counter({
      name: 'darkroom_forwards_saved_total',
      help: 'Runs of the denoiser that guidance intervals and reuse saved.',
      labels: ['model'],
    }),
    promptCache: registry.counter({
      name: 'darkroom_prompt_cache_total',
      help: 'Texts whose embeddings were kept (hit) or had to be encoded (miss).',
      labels: ['model', 'result'],
    }),
    variants: registry.counter({
      name: 'darkroom_variants_total',
      help: 'LoRA variants of a model that were built or evicted.',
      labels: ['model', 'event'],
    }),
    loads: registry.counter({
      name: 'darkroom_model_loads_total',
      help: 'Attempts at loading a model, by result.',
      labels: ['model', 'result'],
    }),
    loadSeconds: registry.histogram({
      name: 'darkroom_model_load_seconds',
      help: 'Time from the start of an engine to its readiness, the delay of a restart included.',
      labels: ['model'],
      buckets: JOB_SECONDS,
    }),
    enhancements: registry.counter({
      name: 'darkroom_enhancements_total',
      help: "Jobs whose prompt was enhanced (qwen) or stayed as it was although the job's type enhances (fallback).",
      labels: ['outcome'],
    }),
    enhanceSeconds: registry.histogram({
      name: 'darkroom_enhance_seconds',
      help: 'Time to enhance the prompt of a job; loading and waiting count.',
      buckets: JOB_SECONDS,
    }),
    refused: registry.counter({
      name: 'darkroom_requests_refused_total',
      help: 'Calls that failed before their first response.',
      labels: ['method', 'reason'],
    }),
    openCalls: registry.gauge({
      name: 'darkroom_open_calls',
      help: 'Calls that are being answered.',
      labels: ['method'],
    }),
    sentBytes: registry.counter({
      name: 'darkroom_sent_bytes_total',
      help: 'Size of the responses before compression.',
      labels: ['method'],
    }),
  };
}

/** Labels of an engine: several may serve one model. */
function namesOf(spec: Work['spec']): { readonly model: string; readonly engine: string } {
  return { model: spec.model, engine: engineName(spec) };
}

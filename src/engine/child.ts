/** The engine process: loads one model, runs jobs, one lot at a time, and ends when its parent does. */
import { InferenceError } from '../errors.js';
import { encodeImage } from '../media/encode-image.js';
import type { ImageMetadata } from '../media/image-metadata.js';
import { previewImage } from '../media/preview-image.js';
import type { Phase, Pipeline } from '../pipelines/pipeline.js';
import { createSdxlPipeline } from '../pipelines/sdxl/index.js';
import { version } from '../version.js';
import { toEngineError } from './engine-error.js';
import type { EngineJob, EngineSpec, EngineTimings, MessageFromEngine, MessageToEngine } from './messages.js';
import { endWithParent } from './parent-watch.js';
import { chooseDevice } from './probe.js';

endWithParent();

let pipeline: Pipeline | undefined;
let modelName = '';
/** Of the jobs that run now, those that have not ended. */
const running = new Map<string, AbortController>();

process.on('message', (message: MessageToEngine) => {
  switch (message.kind) {
    case 'start':
      void load(message.spec);
      return;
    case 'run':
      void run(message.jobs);
      return;
    case 'cancel':
      running.get(message.jobId)?.abort(new InferenceError('CANCELLED', 'the job was cancelled'));
      return;
    case 'shutdown':
      process.exit(0);
  }
});

async function load({ model, source, device: wanted, threads, batchPixels }: EngineSpec): Promise<void> {
  const startedAt = performance.now();
  try {
    modelName = model;
    const { device, rejected } = await chooseDevice(wanted);
    pipeline = await createSdxlPipeline({ ...source, device, threads, batchPixels });
    send({ kind: 'ready', info: pipeline.info, device, rejected, loadMs: performance.now() - startedAt });
  } catch (error) {
    send({ kind: 'start-failed', error: toEngineError(error).toJSON() }, () => process.exit(1));
  }
}

async function run(jobs: readonly EngineJob[]): Promise<void> {
  try {
    if (pipeline === undefined || running.size > 0) {
      throw new InferenceError('INTERNAL', `the engine got jobs while ${pipeline ? 'busy' : 'not loaded'}`);
    }
    for (const { jobId } of jobs) running.set(jobId, new AbortController());
    await runTogether(pipeline, jobs);
  } catch (error) {
    // What fails one fails all that shared its runs.
    for (const { jobId } of jobs) if (running.has(jobId)) fail(jobId, toEngineError(error));
  }
}

async function runTogether(model: Pipeline, jobs: readonly EngineJob[]): Promise<void> {
  const clock = new JobClock();
  const together = jobs.map(({ jobId, request }) => ({
    request,
    signal: running.get(jobId)?.signal ?? AbortSignal.abort(),
  }));
  const batchImages = jobs.reduce((count, { request }) => count + request.seeds.length, 0);
  for await (const event of model.generate(together)) {
    const job = jobs[event.job] as EngineJob;
    const { jobId, output } = job;
    switch (event.kind) {
      case 'progress': {
        clock.lap(event.phase);
        const { phase, step, total } = event;
        send({ kind: 'event', jobId, event: { kind: 'progress', phase, step, total } });
        break;
      }
      case 'image': {
        clock.lap('decode');
        const { index, seed, width, height, rgb } = event;
        const { format, quality } = output;
        const metadata = metadataOf(job, seed);
        const file = await encodeImage(rgb, { width, height }, { format, quality, metadata });
        clock.lap('media');
        send({ kind: 'event', jobId, event: { kind: 'asset', index, seed, width, height, ...file } });
        break;
      }
      case 'prompt':
        send({ kind: 'event', jobId, event: { kind: 'prompt', report: event.report } });
        break;
      case 'preview': {
        const bytes = await previewImage(event.rgb, event);
        send({
          kind: 'event',
          jobId,
          event: { kind: 'preview', index: event.index, contentType: 'image/jpeg', bytes },
        });
        clock.lap('media');
        break;
      }
      case 'done':
        running.delete(jobId);
        send({ kind: 'done', jobId, timings: { ...clock.timings(), batchImages, peakBytes: peakBytes() } });
        break;
      case 'aborted':
        fail(jobId, InferenceError.from(running.get(jobId)?.signal.reason));
    }
  }
}

/** What the file of one picture says about itself. */
function metadataOf({ request, output }: EngineJob, seed: number): ImageMetadata {
  if (output.metadata !== 'full') return { kind: output.metadata };
  const { weights, init, ...rest } = request;
  const promptWeights = weights || undefined;
  return {
    kind: 'full',
    parameters: { ...rest, seed, model: modelName, promptWeights, referenceStrength: init?.strength, version },
  };
}

function peakBytes(): number {
  return process.resourceUsage().maxRSS * 1024;
}

function fail(jobId: string, error: InferenceError): void {
  running.delete(jobId);
  send({ kind: 'failed', jobId, error: error.toJSON() });
}

/** Where the time of the jobs that run together went. */
class JobClock {
  readonly #startedAt = performance.now();
  readonly #spent: Record<Phase | 'media', number> = { encode: 0, denoise: 0, decode: 0, media: 0 };
  #mark = this.#startedAt;

  /** What passed since the last lap was spent on this. */
  lap(phase: Phase | 'media'): void {
    const now = performance.now();
    this.#spent[phase] += now - this.#mark;
    this.#mark = now;
  }

  timings(): Omit<EngineTimings, 'batchImages' | 'peakBytes'> {
    const { encode, denoise, decode, media } = this.#spent;
    const totalMs = performance.now() - this.#startedAt;
    return { encodeMs: encode, denoiseMs: denoise, decodeMs: decode, mediaMs: media, totalMs };
  }
}

function send(message: MessageFromEngine, sent?: () => void): void {
  // A parent that is gone does not listen; this process ends with it.
  if (process.connected) process.send?.(message, undefined, undefined, () => sent?.());
}

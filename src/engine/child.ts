/** The engine process: loads one model, runs jobs, one lot at a time, and ends when its parent does. */
import { InferenceError } from '../errors.js';
import { removeStaleClips } from '../media/clip-writer.js';
import { encodeImage } from '../media/encode-image.js';
import type { ImageMetadata } from '../media/image-metadata.js';
import { previewImage } from '../media/preview-image.js';
import type { Device, ImageEvent, Phase, Pipeline } from '../pipelines/pipeline.js';
import { createSdxlPipeline } from '../pipelines/sdxl/index.js';
import { createWanPipeline } from '../pipelines/wan/pipeline.js';
import { version } from '../version.js';
import { ClipAssets } from './clip-assets.js';
import { toEngineError } from './engine-error.js';
import type {
  EngineEvent,
  EngineJob,
  EngineSpec,
  EngineTimings,
  MessageFromEngine,
  MessageToEngine,
} from './messages.js';
import { endWithParent } from './parent-watch.js';
import { chooseDevice } from './probe.js';

endWithParent();
// A folder that cannot be taken away is no reason not to serve.
removeStaleClips().catch(() => undefined);

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

async function load(spec: EngineSpec): Promise<void> {
  const startedAt = performance.now();
  try {
    modelName = spec.model;
    const { device, rejected } = await chooseDevice(spec.device);
    pipeline = await createPipeline(spec, device);
    send({ kind: 'ready', info: pipeline.info, device, rejected, loadMs: performance.now() - startedAt });
  } catch (error) {
    send({ kind: 'start-failed', error: toEngineError(error).toJSON() }, () => process.exit(1));
  }
}

function createPipeline(spec: EngineSpec, device: Exclude<Device, 'auto'>): Promise<Pipeline> {
  const { threads, batchPixels } = spec;
  if (spec.family === 'wan') return createWanPipeline({ ...spec.source, device, threads });
  return createSdxlPipeline({ ...spec.source, device, threads, batchPixels });
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
  const clips = new Map<EngineJob, ClipAssets>();
  try {
    for await (const event of model.generate(together)) {
      const job = jobs[event.job] as EngineJob;
      const { jobId } = job;
      switch (event.kind) {
        case 'prompt':
          tell(job, { kind: 'prompt', report: event.report });
          break;
        case 'progress': {
          clock.lap(event.phase);
          const { phase, step, total } = event;
          tell(job, { kind: 'progress', phase, step, total });
          break;
        }
        case 'preview': {
          const bytes = await previewImage(event.rgb, event);
          tell(job, { kind: 'preview', index: event.index, contentType: 'image/jpeg', bytes });
          clock.lap('media');
          break;
        }
        case 'image':
          clock.lap('decode');
          tell(job, await pictureAsset(job, event, event.index));
          clock.lap('media');
          break;
        case 'frames':
          clock.lap('decode');
          if (job.output.clip === undefined) {
            const [rgb = new Uint8Array()] = event.frames;
            tell(job, await pictureAsset(job, { ...event, rgb }, 0));
          } else {
            const clip =
              clips.get(job) ?? (await ClipAssets.start(job.output.clip, event, metadataOf(job, event.seed)));
            clips.set(job, clip);
            await clip.write(event.frames);
          }
          clock.lap('media');
          break;
        case 'done': {
          const assets = (await clips.get(job)?.finish(job.output.quality)) ?? [];
          clips.delete(job);
          for (const asset of assets) tell(job, asset);
          clock.lap('media');
          running.delete(jobId);
          const { forwards } = event;
          const counted = { batchImages, peakBytes: peakBytes(), ...(forwards !== undefined && { forwards }) };
          send({ kind: 'done', jobId, timings: { ...clock.timings(), ...counted } });
          break;
        }
        case 'aborted':
          await clips.get(job)?.abort();
          clips.delete(job);
          fail(jobId, InferenceError.from(running.get(jobId)?.signal.reason));
      }
    }
  } finally {
    // What is still there belongs to a job that failed.
    for (const clip of clips.values()) await clip.abort();
  }
}

function tell({ jobId }: EngineJob, event: EngineEvent): void {
  send({ kind: 'event', jobId, event });
}

async function pictureAsset(
  job: EngineJob,
  { rgb, width, height, seed }: Pick<ImageEvent, 'rgb' | 'width' | 'height' | 'seed'>,
  index: number,
): Promise<EngineEvent> {
  const { format, quality } = job.output;
  const metadata = metadataOf(job, seed);
  const file = await encodeImage(rgb, { width, height }, { format, quality, metadata });
  return { kind: 'asset', role: 'result', index, seed, width, height, ...file };
}

/** What the file of one picture says about itself. */
function metadataOf({ request, output }: EngineJob, seed: number): ImageMetadata {
  if (output.metadata !== 'full') return { kind: output.metadata };
  const { weights, init, clip, ...rest } = request;
  const promptWeights = weights || undefined;
  return {
    kind: 'full',
    parameters: {
      ...rest,
      seed,
      model: modelName,
      promptWeights,
      referenceStrength: init?.strength,
      guidanceInterval: clip?.guidanceInterval,
      reuseThreshold: clip?.reuseThreshold,
      version,
    },
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

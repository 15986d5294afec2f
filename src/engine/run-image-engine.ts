import { InferenceError } from '../errors.js';
import { encodeImage, type Size } from '../media/encode-image.js';
import type { ImageMetadata, UpscaleParameters } from '../media/image-metadata.js';
import { previewImage } from '../media/preview-image.js';
import { removeStaleVideos } from '../media/video-writer.js';
import { MemoryRelief } from '../pipelines/common/memory-relief.js';
import { ReplacedFileError } from '../pipelines/common/source-files.js';
import { type AnyFamily, type Families, familyNamed, type OpenOptions } from '../pipelines/family.js';
import type { ModelMemory } from '../pipelines/model-memory.js';
import type {
  ImageEvent,
  Phase,
  Pipeline,
  PromptCacheUse,
  RequestLora,
  RequestUpscale,
} from '../pipelines/pipeline.js';
import { canTakeLoras, VariantPipeline } from '../pipelines/variant-pipeline.js';
import { openBackend } from '../runtime/backend.js';
import { measureMemory } from '../runtime/device-memory.js';
import { ModelCache } from '../runtime/model-cache/model-cache.js';
import { QuantisedLinears } from '../runtime/model-cache/quantised-linears.js';
import { chooseDevice } from '../runtime/probe.js';
import type { Runtime } from '../runtime/runtime.js';
import { version } from '../version.js';
import { toEngineError } from './engine-error.js';
import { type JobReporter, serveEngine } from './engine-process.js';
import { ImageCheck } from './image-check.js';
import type { EngineEvent, EngineJob, EngineSpec, EngineTimings, ImageWork } from './messages.js';
import { VideoAssets } from './video-assets.js';

/**
 * Serves image and video jobs from this process. It loads one model of these families and runs one batch at a time.
 */
export function runImageEngine(families: Families): void {
  // Serving goes on if a stale folder cannot be removed.
  removeStaleVideos().catch(() => undefined);
  const relief = new MemoryRelief();
  let pipeline: Pipeline | undefined;
  let check: ImageCheck | undefined;
  let loaded: EngineSpec | undefined;
  const parent = serveEngine<ImageWork>({
    async load(spec) {
      loaded = spec;
      check = spec.imageCheck && (await ImageCheck.open(spec.imageCheck, spec.threads));
      const { runtime, providerLibrary, deviceId, threads, precision, fuses, memoryLimitBytes, packsWeights } = spec;
      const { device, rejected } = await chooseDevice(spec.device, { runtime, providerLibrary, deviceId });
      const { takesTurns } = spec;
      const turns = takesTurns === 'always' || (takesTurns === 'gpu' && device !== 'cpu') ? parent.turns : undefined;
      // The parent logs what a process prints, at debug.
      const log = (line: string) => process.stderr.write(`${line}\n`);
      const cache = spec.modelCache && new ModelCache({ ...spec.modelCache, log });
      const quantised =
        spec.quantises && spec.modelCache ? new QuantisedLinears({ ...spec.modelCache, log }) : undefined;
      const asked = { deviceId, threads, precision, fuses, runtime, providerLibrary, memoryLimitBytes, packsWeights };
      const backend = await openBackend({
        provider: device,
        ...asked,
        turns,
        cache,
        quantised,
      });
      pipeline = await openModel(familyNamed(families, spec.family), spec, {
        backend,
        relief,
        onDescribed: parent.inform,
      });
      relief.addSource('ended_language_model', () => parent.requestMemory());
      const info = { ...pipeline.info, memory: plannedMemory(pipeline) };
      return { info, device, rejected, runtime: describeRuntime(backend.runtime) };
    },
    async run(jobs, reporter) {
      if (pipeline === undefined || loaded === undefined || reporter.running > jobs.length) {
        throw new InferenceError('INTERNAL', `the engine got jobs while ${pipeline ? 'busy' : 'not loaded'}`);
      }
      relief.begin();
      const before = JSON.stringify(pipeline.info.precisions);
      try {
        await renderBatch({ name: loaded.model, pipeline, check, relief }, jobs, reporter);
      } catch (error) {
        if (!(error instanceof ReplacedFileError)) throw error;
        const problem = await problemOf(familyNamed(families, loaded.family), loaded);
        if (problem === undefined) throw error;
        parent.warn(problem.message);
        throw problem;
      } finally {
        // What opens in a wider type takes more memory than was planned.
        if (JSON.stringify(pipeline.info.precisions) !== before)
          parent.inform({ ...pipeline.info, memory: plannedMemory(pipeline) });
      }
    },
  });
}

/**
 * What is wrong with the checkpoint that took the place of the loaded one: it may not be whole yet. Then the engine goes on with what
 * it has, for the jobs that need nothing of the files. Undefined where it can be loaded.
 */
async function problemOf(family: AnyFamily, { source }: EngineSpec): Promise<InferenceError | undefined> {
  try {
    await family.inspect(source);
    return undefined;
  } catch (error) {
    return new InferenceError(
      'ENGINE_STARTING',
      `the checkpoint was replaced after it was loaded, by one that cannot be: ${toEngineError(error).message}`,
      { retryAfterMs: 10_000, cause: error },
    );
  }
}

function describeRuntime(runtime: Runtime): { readonly name: string; readonly reason?: string | undefined } {
  return runtime.name === 'native' ? { name: runtime.name } : { name: runtime.name, reason: runtime.reason };
}

/** What Estimate is told. A model that cannot be planned is served all the same. */
function plannedMemory(pipeline: Pipeline): ModelMemory | undefined {
  try {
    return pipeline.planMemory?.();
  } catch (error) {
    process.emitWarning(`the memory of its networks could not be computed: ${String(error)}`);
    return undefined;
  }
}

interface OpenedFor extends Pick<OpenOptions, 'backend' | 'onDescribed'> {
  readonly relief: MemoryRelief;
}

async function openModel(family: AnyFamily, spec: EngineSpec, options: OpenedFor): Promise<Pipeline> {
  const { source, batchPixels, variants = 1, reserveBytes = 0, weightsCache } = spec;
  const { backend, relief } = options;
  const bare = await family.open(source, { ...options, batchPixels, weightsCache });
  const freeBytes = async () =>
    Math.max(0, (await measureMemory(backend.provider, [], backend.deviceId)).freeBytes - reserveBytes);
  return canTakeLoras(bare) ? new VariantPipeline(bare, { count: variants, freeBytes, relief }) : bare;
}

interface LoadedModel {
  readonly name: string;
  readonly pipeline: Pipeline;
  readonly check: ImageCheck | undefined;
  readonly relief: MemoryRelief;
}

async function renderBatch(
  { name, pipeline, check, relief }: LoadedModel,
  jobs: readonly EngineJob[],
  reporter: JobReporter<ImageWork>,
): Promise<void> {
  const clock = new JobClock();
  const together = jobs.map(({ jobId, request }) => ({
    request,
    signal: reporter.signal(jobId),
  }));
  const batchImages = jobs.reduce((count, { request }) => count + request.seeds.length, 0);
  const clips = new Map<EngineJob, VideoAssets>();
  const cacheUses = new Map<EngineJob, PromptCacheUse>();
  const checked = new CheckedJobs(check, reporter);
  const files = new FileWork(pipeline.backend.runtime.name === 'native');
  let isBuilding = false;
  try {
    for await (const event of pipeline.generate(together)) {
      const job = jobs[event.job] as EngineJob;
      // A refused job gets nothing more; the pipeline sees its signal at its next step.
      if (event.kind !== 'aborted' && checked.isRefused(job)) continue;
      const emit = (emitted: EngineEvent) => reporter.emit(job.jobId, emitted);
      // The first event after `building` ends the time of the build.
      if (isBuilding && event.kind !== 'building') {
        clock.lap('build');
        isBuilding = false;
      }
      switch (event.kind) {
        case 'building':
          isBuilding = true;
          emit({ kind: 'building' });
          break;
        case 'prompt':
          emit({ kind: 'prompt', report: event.report });
          if (event.cache !== undefined) cacheUses.set(job, event.cache);
          break;
        case 'progress': {
          clock.lap(event.phase);
          const { phase, step, total } = event;
          emit({ kind: 'progress', phase, step, total });
          break;
        }
        case 'preview': {
          if (check !== undefined) break;
          const bytes = await previewImage(event.rgb, event);
          emit({ kind: 'preview', index: event.index, contentType: 'image/jpeg', bytes });
          clock.lap('media');
          break;
        }
        case 'image':
          clock.lap('decode');
          await files.end();
          if (await checked.pass(job, event, [event.rgb]))
            await files.begin(async () => emit(await imageAsset(name, job, event, event.index)));
          clock.lap('media');
          break;
        case 'frames':
          clock.lap('decode');
          if (!(await checked.pass(job, event, event.frames))) break;
          if (job.output.video === undefined) {
            const [rgb = new Uint8Array()] = event.frames;
            emit(await imageAsset(name, job, { ...event, rgb }, 0));
          } else {
            const { video, quality } = job.output;
            const clip =
              clips.get(job) ?? (await VideoAssets.start({ video, quality }, event, metadataOf(name, job, event.seed)));
            clips.set(job, clip);
            await clip.write(event.frames);
          }
          clock.lap('media');
          break;
        case 'done':
          await files.begin(async () => {
            const assets = (await clips.get(job)?.finish(job.output.quality)) ?? [];
            clips.delete(job);
            for (const asset of assets) emit(asset);
            const { precisions: modelPrecisions = [] } = pipeline.info;
            const { forwards, precisions = modelPrecisions } = event;
            const variants = pipeline.variants ?? { keys: [], builds: 0 };
            const promptCache = cacheUses.get(job);
            const counted = {
              batchImages,
              peakBytes: peakBytes(),
              memoryMeasures: relief.taken,
              variants,
              precisions,
              modelPrecisions,
              ...(forwards !== undefined && { forwards }),
              ...(promptCache !== undefined && { promptCache }),
            };
            reporter.done(job.jobId, { ...clock.timings(), ...counted });
          });
          break;
        case 'aborted':
          await clips.get(job)?.abort();
          clips.delete(job);
          reporter.fail(job.jobId, reporter.signal(job.jobId).reason);
      }
    }
    await files.end();
  } finally {
    await files.end().catch(() => undefined);
    // The videos that are left belong to failed jobs.
    for (const clip of clips.values()) await clip.abort();
  }
}

/** Work on the files of a batch, one piece after the other, while its device goes on. */
class FileWork {
  readonly #goesOn: boolean;
  #last: Promise<void> = Promise.resolve();

  /** @param goesOn false: runs block the process, and messages with it. Then each piece ends before the next run */
  constructor(goesOn: boolean) {
    this.#goesOn = goesOn;
  }

  async begin(work: () => Promise<void>): Promise<void> {
    this.#last = this.#last.then(work);
    this.#last.catch(() => undefined);
    if (!this.#goesOn) await this.#last;
  }

  /** @throws what the work failed with */
  end(): Promise<void> {
    return this.#last;
  }
}

/** Checks the images of a batch's jobs before anything is written. */
class CheckedJobs {
  readonly #check: ImageCheck | undefined;
  readonly #reporter: JobReporter<ImageWork>;
  readonly #refused = new Set<EngineJob>();
  /** Frames of each video so far. */
  readonly #frames = new Map<EngineJob, number>();

  constructor(check: ImageCheck | undefined, reporter: JobReporter<ImageWork>) {
    this.#check = check;
    this.#reporter = reporter;
  }

  isRefused(job: EngineJob): boolean {
    return this.#refused.has(job);
  }

  /** @returns false if the job ends because of one of these images */
  async pass(job: EngineJob, size: Size, images: readonly Uint8Array[]): Promise<boolean> {
    const check = this.#check;
    if (check === undefined) return true;
    const { jobId, request } = job;
    const total = request.video?.frames ?? 1;
    const before = this.#frames.get(job) ?? 0;
    if (request.video !== undefined) this.#frames.set(job, before + images.length);
    const taken = images.filter((_, i) => request.video === undefined || check.takesFrame(before + i, total));
    try {
      for (const rgb of taken) {
        const result = await check.check(rgb, size);
        if (result.kind === 'unchecked') this.#reporter.emit(jobId, result);
        if (result.kind !== 'refused') continue;
        this.#reporter.emit(jobId, result);
        throw new InferenceError('POLICY', "the image is refused: this server's policy does not allow it");
      }
      return true;
    } catch (error) {
      this.#refused.add(job);
      this.#reporter.fail(jobId, error);
      return false;
    }
  }
}

async function imageAsset(
  model: string,
  job: EngineJob,
  { rgb, width, height, seed }: Pick<ImageEvent, 'rgb' | 'width' | 'height' | 'seed'>,
  index: number,
): Promise<EngineEvent> {
  const { format, quality } = job.output;
  const metadata = metadataOf(model, job, seed);
  const file = await encodeImage(rgb, { width, height }, { format, quality, metadata });
  return { kind: 'asset', role: 'result', index, seed, width, height, ...file };
}

/** Metadata in the file of one image. */
function metadataOf(model: string, { request, output }: EngineJob, seed: number): ImageMetadata {
  if (output.metadata !== 'full') return { kind: output.metadata };
  const { weights, init, video, prompt, loras = [], upscale, ...rest } = request;
  const promptWeights = weights || undefined;
  return {
    kind: 'full',
    parameters: {
      ...rest,
      // LoRA signs in A1111's syntax, which this server reads, too.
      prompt: [prompt, ...loras.map(loraSign)].join(' '),
      seed,
      model,
      promptWeights,
      referenceStrength: init?.strength,
      guidanceInterval: video?.guidanceInterval,
      reuseThreshold: video?.reuseThreshold,
      skipLayers: video?.skipLayers,
      upscale: upscale && upscaleParameters(upscale),
      version,
    },
  };
}

function upscaleParameters({ method, ...rest }: RequestUpscale): UpscaleParameters {
  const names = { lanczos: 'Lanczos', latent: 'Latent' };
  return { ...rest, upscaler: typeof method === 'string' ? names[method] : method.name };
}

function loraSign({ name, weight, textEncoderWeight }: RequestLora): string {
  const weights = weight === textEncoderWeight ? [weight] : [textEncoderWeight, weight];
  return `<lora:${[name, ...weights].join(':')}>`;
}

function peakBytes(): number {
  return process.resourceUsage().maxRSS * 1024;
}

/** Splits the time of a batch between the phases. */
class JobClock {
  readonly #startedAt = performance.now();
  readonly #spent: Record<Phase | 'media' | 'build', number> = { encode: 0, denoise: 0, decode: 0, media: 0, build: 0 };
  #mark = this.#startedAt;

  /** Adds the time since the last call to a phase. */
  lap(phase: Phase | 'media' | 'build'): void {
    const now = performance.now();
    this.#spent[phase] += now - this.#mark;
    this.#mark = now;
  }

  /** At the end of a job: time that no phase has yet went into its last file. */
  timings(): Pick<EngineTimings, 'encodeMs' | 'denoiseMs' | 'decodeMs' | 'mediaMs' | 'buildMs' | 'totalMs'> {
    const { encode, denoise, decode, media, build } = this.#spent;
    const now = performance.now();
    const mediaMs = media + now - this.#mark;
    const totalMs = now - this.#startedAt;
    return { encodeMs: encode, denoiseMs: denoise, decodeMs: decode, mediaMs, buildMs: build, totalMs };
  }
}

import { createHash } from 'node:crypto';
import type { EngineEvent, EngineTimings } from '../engine/messages.js';
import type { Supervisor } from '../engine/supervisor.js';
import { Phase } from '../gen/darkroom/v1/event.js';
import type { JobMetadata } from '../gen/darkroom/v1/job.js';
import { version } from '../version.js';
import type { Job } from './job.js';

/** Far below gRPC's own message limit of 4 MB, and small enough for a smooth stream. */
const CHUNK_BYTES = 256 * 1024;

const PHASES = { encode: Phase.PHASE_ENCODE, denoise: Phase.PHASE_DENOISE, decode: Phase.PHASE_DECODE } as const;
/** Where in the whole job a picture's denoising ends and its decoding goes on. */
const DENOISE_SHARE = 0.9;

/** Runs a job on an engine that may have to be waited for, and records its events. Throws what ends it early. */
export async function runJob(job: Job, engine: Supervisor): Promise<void> {
  job.signal.throwIfAborted();
  if (engine.state !== 'ready') {
    job.emit({ $case: 'modelLoading', value: { model: job.model } });
    await engine.whenReady(job.signal);
  }
  const startedAt = Date.now();
  const metadata = plannedMetadata(job, engine, startedAt);
  job.emit({ $case: 'started', value: { metadata } });
  const run = engine.run(job.id, job.request);
  const cancel = () => run.cancel(job.signal.reason);
  job.signal.addEventListener('abort', cancel, { once: true });
  try {
    const progress = createProgress(job);
    for await (const event of run.events) {
      if (event.kind === 'progress') job.emit(progress(event));
      else emitAsset(job, event);
    }
    const timings = await run.result;
    job.emit({
      $case: 'completed',
      value: { metadata: finalMetadata(metadata, job, timings), assets: [...job.assets] },
    });
  } finally {
    job.signal.removeEventListener('abort', cancel);
  }
}

type ProgressEvent = Extract<EngineEvent, { kind: 'progress' }>;

function createProgress(job: Job) {
  let firstStepAt: number | undefined;
  let reached = 0;
  const images = job.request.seeds.length;
  return ({ phase, step, total }: ProgressEvent) => {
    const done =
      phase === 'denoise'
        ? (Math.floor((step - 1) / job.request.steps) +
            (DENOISE_SHARE * (((step - 1) % job.request.steps) + 1)) / job.request.steps) /
          images
        : phase === 'decode'
          ? step / images
          : 0;
    reached = Math.max(reached, done);
    const now = performance.now();
    if (phase === 'denoise') firstStepAt ??= now;
    const isKnown = firstStepAt !== undefined && (step > 1 || phase === 'decode');
    const firstStep = DENOISE_SHARE / (job.request.steps * images);
    const etaSeconds =
      isKnown && reached > firstStep
        ? (((now - (firstStepAt ?? now)) / (reached - firstStep)) * (1 - reached)) / 1000
        : undefined;
    return {
      $case: 'progress' as const,
      value: { phase: PHASES[phase], step, total, fraction: reached, etaSeconds },
    };
  };
}

function emitAsset(
  job: Job,
  { index, seed, width, height, contentType, bytes }: Extract<EngineEvent, { kind: 'asset' }>,
): void {
  const file = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const asset = {
    index,
    contentType,
    sizeBytes: BigInt(file.length),
    sha256: createHash('sha256').update(file).digest(),
    width,
    height,
    seed: BigInt(seed),
  };
  for (let offset = 0; offset < file.length; offset += CHUNK_BYTES) {
    const data = file.subarray(offset, offset + CHUNK_BYTES);
    const isLast = offset + data.length === file.length;
    const value = { index, offset: BigInt(offset), data, asset: isLast ? asset : undefined };
    job.emit({ $case: 'assetChunk', value });
  }
}

function plannedMetadata(job: Job, engine: Supervisor, startedAt: number): JobMetadata {
  const { request } = job;
  const [seed = 0] = request.seeds;
  return {
    seed: BigInt(seed),
    seeds: request.seeds.map(BigInt),
    jobType: job.jobType,
    model: job.model,
    width: request.width,
    height: request.height,
    steps: request.steps,
    guidanceScale: request.guidanceScale,
    scheduler: request.scheduler,
    numImages: request.seeds.length,
    originalPrompt: request.prompt,
    negativePrompt: request.negativePrompt ?? '',
    device: engine.device ?? '',
    queueSeconds: (startedAt - job.createTime.getTime()) / 1000,
    generationSeconds: 0,
    encodeSeconds: 0,
    denoiseSeconds: 0,
    decodeSeconds: 0,
    totalSizeBytes: 0n,
    serverVersion: version,
    frames: undefined,
    fps: undefined,
    enhancedPrompt: undefined,
    referenceMode: undefined,
    referenceApplied: undefined,
    referenceMethod: undefined,
  };
}

function finalMetadata(planned: JobMetadata, job: Job, timings: EngineTimings): JobMetadata {
  return {
    ...planned,
    generationSeconds: timings.totalMs / 1000,
    encodeSeconds: timings.encodeMs / 1000,
    denoiseSeconds: timings.denoiseMs / 1000,
    decodeSeconds: timings.decodeMs / 1000,
    totalSizeBytes: BigInt(job.assetBytes),
  };
}

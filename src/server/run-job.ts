import { createHash } from 'node:crypto';
import type { EngineEvent, EngineTimings } from '../engine/messages.js';
import type { Supervisor } from '../engine/supervisor.js';
import type { JobMetadata } from '../gen/darkroom/v1/job.js';
import { version } from '../version.js';
import type { Job } from './job.js';
import { ProgressMeter } from './progress.js';

/** Far below gRPC's own message limit of 4 MB, and small enough for a smooth stream. */
const CHUNK_BYTES = 256 * 1024;

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
    const meter = new ProgressMeter(job.request);
    for await (const event of run.events) {
      if (event.kind === 'asset') emitAsset(job, event);
      else job.emit({ $case: 'progress', value: meter.advance(event, performance.now()) });
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

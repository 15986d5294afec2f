import { createHash } from 'node:crypto';
import type { Engine, RunHandle } from '../../engine/engine.js';
import type { EngineEvent, EngineTimings } from '../../engine/messages.js';
import { InferenceError } from '../../errors.js';
import type { ModelLoading } from '../../gen/darkroom/v1/event.js';
import { AssetRole } from '../../gen/darkroom/v1/job.js';
import type { ModelInfo, PromptReport } from '../../pipelines/pipeline.js';
import { type DeviceMemory, measureCard } from '../../runtime/device-memory.js';
import { filesOf } from '../request/add-on-kinds.js';
import { loraMessages } from '../request/loras.js';
import { conditioningTexts, type Policy, subjectOfJob } from '../request/policy.js';
import { withoutPaths } from '../request/without-paths.js';
import type { CostModel } from './cost-model.js';
import type { GenerateJob } from './generate-job.js';
import { ProgressMeter } from './job-progress.js';
import { completedMetadata, plannedMetadata } from './metadata.js';

/** Far below gRPC's own message limit of 4 MB, and small enough for a smooth stream. */
const CHUNK_BYTES = 256 * 1024;

const ROLES = {
  result: AssetRole.ASSET_ROLE_RESULT,
  poster: AssetRole.ASSET_ROLE_POSTER,
  thumbnail: AssetRole.ASSET_ROLE_THUMBNAIL,
} as const;

/**
 * Runs a batch of jobs on an engine that is ready and records their events. A job whose final request the policy refuses, or that was
 * planned for another checkpoint, does not reach the engine.
 * @returns for each job the reason for an early end; undefined if it completed
 */
export async function runBatch(
  jobs: readonly GenerateJob[],
  engine: Engine,
  context: Omit<BatchContext, 'engine' | 'startedAt'>,
): Promise<readonly unknown[]> {
  const { policy, onEnd } = context;
  const refusals = jobs.map(
    (job) =>
      staleness(job, engine.info) ?? policy.find(conditioningTexts(job.request), 'the prompt', subjectOfJob(job)),
  );
  for (const [i, job] of jobs.entries()) if (refusals[i] !== undefined) onEnd(job, refusals[i]);
  const allowed = jobs.filter((_, i) => refusals[i] === undefined);
  const ends = allowed.length === 0 ? [] : await runAllowed(allowed, engine, context);
  return jobs.map((job, i) => refusals[i] ?? ends[allowed.indexOf(job)]);
}

/** An engine that restarted may have read another checkpoint: then the job's sizes and references were checked against the wrong one. */
function staleness({ model, plan }: GenerateJob, info: ModelInfo | undefined): InferenceError | undefined {
  if (info === undefined || identityOf(info) === identityOf(plan.info)) return undefined;
  return new InferenceError(
    'ENGINE_STARTING',
    `the checkpoint of model "${model}" was replaced after the job was checked; send the job again`,
    { retryAfterMs: 1000 },
  );
}

function identityOf({ parameters, sizeMultiple, layers, frames, clip, takesImagePrompts }: ModelInfo): string {
  return JSON.stringify([parameters, sizeMultiple, layers, frames, clip, takesImagePrompts]);
}

async function runAllowed(
  jobs: readonly GenerateJob[],
  engine: Engine,
  context: Omit<BatchContext, 'engine' | 'startedAt'>,
): Promise<readonly unknown[]> {
  const startedAt = Date.now();
  for (const job of jobs) {
    const metadata = plannedMetadata(job, engine, startedAt);
    job.emit({ $case: 'started', value: { metadata } });
  }
  const handles = engine.run(jobs.map(({ key, request, plan }) => ({ jobId: key, request, output: plan.output })));
  const follow = async (job: GenerateJob, handle: RunHandle) => {
    const error = await followRun(job, handle, { engine, startedAt, ...context }).then(
      () => undefined,
      (caught: unknown) => withoutPaths(InferenceError.from(caught), filesOf(job.request)),
    );
    context.onEnd(job, error);
    return error;
  };
  return Promise.all(handles.map((handle, i) => follow(jobs[i] as GenerateJob, handle)));
}

export interface BatchContext {
  readonly engine: Engine;
  readonly costs: CostModel;
  readonly policy: Policy;
  readonly startedAt: number;
  /** Called with what was measured, and what the engine holds after the job. */
  readonly onTimings: (timings: EngineTimings, job: GenerateJob) => void;
  /** Called as each job ends, with the reason for an early end; undefined if it completed. */
  readonly onEnd: (job: GenerateJob, error: unknown) => void;
  /** Called when the prompts are encoded, perhaps several times. Omitted: nobody asks. */
  readonly onEncoded?: (() => void) | undefined;
}

async function followRun(
  job: GenerateJob,
  run: RunHandle,
  { engine, costs, policy, startedAt, onTimings, onEncoded }: BatchContext,
): Promise<void> {
  const cancel = () => run.cancel(job.signal.reason);
  if (job.signal.aborted) cancel();
  job.signal.addEventListener('abort', cancel, { once: true });
  try {
    const meter = new ProgressMeter(costs.estimate(job.request));
    let prompt: PromptReport | undefined;
    let card: DeviceMemory | undefined;
    for await (const event of run.events) {
      if (event.kind === 'progress' && event.phase !== 'encode') onEncoded?.();
      if (event.kind === 'prompt') prompt = event.report;
      else if (event.kind === 'building') job.emit({ $case: 'modelLoading', value: buildingEvent(job) });
      else if (event.kind === 'unchecked') policy.unchecked(event.problem, job.id);
      else if (event.kind === 'refused')
        policy.refused({ rule: `image.${event.label}`, language: 'und' }, 'the image', subjectOfJob(job));
      else record(job, event, meter);
      // The driver is queried during the decode, the longest phase after denoising; a later answer is ignored.
      if (engine.device !== 'cpu' && isLastStep(event)) {
        void measureCard(engine.spec.deviceId).then((measured) => {
          card = measured;
        });
      }
    }
    const timings = await run.result;
    onTimings(timings, job);
    costs.observe(job.request, timings);
    const metadata = completedMetadata(plannedMetadata(job, engine, startedAt), { job, prompt, timings, card });
    job.emit({ $case: 'completed', value: { metadata, assets: [...job.assets] } });
  } finally {
    job.signal.removeEventListener('abort', cancel);
  }
}

function isLastStep(event: EngineEvent): boolean {
  return event.kind === 'progress' && event.phase === 'denoise' && event.step === event.total;
}

/** The model is loaded, but not with the job's LoRAs. */
function buildingEvent({ model, request }: GenerateJob): ModelLoading {
  return { model, fraction: undefined, converting: false, loras: loraMessages(request.loras) };
}

function record(
  job: GenerateJob,
  event: Exclude<EngineEvent, { kind: 'prompt' | 'building' | 'refused' | 'unchecked' }>,
  meter: ProgressMeter,
): void {
  switch (event.kind) {
    case 'progress': {
      const progress = meter.advance(event, performance.now());
      // A job that runs for the second time keeps its largest fraction.
      job.emit({ $case: 'progress', value: { ...progress, fraction: Math.max(job.fraction, progress.fraction) } });
      return;
    }
    case 'preview': {
      const { index, contentType, bytes } = event;
      job.emit({ $case: 'preview', value: { index, contentType, image: Buffer.from(bytes) } });
      return;
    }
    case 'asset':
      // A job that runs for the second time already has some of its files.
      if (!job.assets.some(({ index }) => index === event.index)) emitAsset(job, event);
  }
}

function emitAsset(
  job: GenerateJob,
  { role, index, seed, width, height, contentType, bytes }: Extract<EngineEvent, { kind: 'asset' }>,
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
    role: ROLES[role],
  };
  for (let offset = 0; offset < file.length; offset += CHUNK_BYTES) {
    const data = file.subarray(offset, offset + CHUNK_BYTES);
    const isLast = offset + data.length === file.length;
    const value = { index, offset: BigInt(offset), data, asset: isLast ? asset : undefined };
    job.emit({ $case: 'assetChunk', value });
  }
}

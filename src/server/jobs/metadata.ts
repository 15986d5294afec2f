import type { Engine } from '../../engine/engine.js';
import { type EngineTimings, engineName } from '../../engine/messages.js';
import type { Enhancement, JobMetadata, SkipLayerGuidance } from '../../gen/darkroom/v1/job.js';
import { firstStep } from '../../pipelines/common/batching.js';
import { resultSize } from '../../pipelines/common/passes.js';
import type { PromptReport, SkipLayers } from '../../pipelines/pipeline.js';
import type { DeviceMemory } from '../../runtime/device-memory.js';
import { version } from '../../version.js';
import type { Enhanced } from '../enhance/prompt-enhancer.js';
import { startsFromImage } from '../request/applied-references.js';
import { controlVideoUse } from '../request/control-video.js';
import { controlMessages } from '../request/controls.js';
import { loraMessages } from '../request/loras.js';
import { upscaleMessage } from '../request/plan-upscale.js';
import type { GenerateJob } from './generate-job.js';

/** Metadata of a job before it starts. */
export function plannedMetadata(
  job: GenerateJob,
  { device, spec }: Pick<Engine, 'device' | 'spec'>,
  startedAtMs: number,
): JobMetadata {
  const { request, plan } = job;
  const [seed = 0] = request.seeds;
  const { references } = plan;
  const applied = references?.applied;
  return {
    seed: BigInt(seed),
    seeds: request.seeds.map(BigInt),
    jobType: job.jobType,
    model: job.model,
    ...resultSize(request),
    steps: request.steps,
    guidanceScale: request.guidanceScale,
    scheduler: request.scheduler,
    samplingPreset: plan.samplingPreset,
    numImages: request.seeds.length,
    originalPrompt: plan.prompt,
    negativePrompt: request.negativePrompt ?? '',
    device: device ?? '',
    queueSeconds: (startedAtMs - job.createTime.getTime()) / 1000,
    generationSeconds: 0,
    encodeSeconds: 0,
    denoiseSeconds: 0,
    decodeSeconds: 0,
    totalSizeBytes: 0n,
    serverVersion: version,
    frames: request.video?.frames,
    fps: plan.output.video?.fps,
    ...enhancementFields(job),
    referenceMode: references?.mode ?? 'none',
    // True only if every reference was applied.
    referenceApplied: applied && applied.problem === undefined,
    referenceMethod: applied?.method,
    referenceProblem: applied?.problem,
    // The only way of fitting: see decode-reference.ts.
    referenceFit: references && 'cover_center_crop',
    referenceStrength: references?.strength,
    denoisingStrength: startsFromImage(applied?.method)
      ? (request.steps - firstStep(request)) / request.steps
      : undefined,
    promptTokens: undefined,
    droppedTokens: undefined,
    promptChunks: undefined,
    finalPromptType: undefined,
    weights: request.weights || undefined,
    batchImages: undefined,
    enginePeakBytes: undefined,
    forwards: undefined,
    guidanceInterval: request.video?.guidanceInterval,
    reuseThreshold: request.video?.reuseThreshold || undefined,
    skipLayerGuidance: skipLayersMessage(request.video?.skipLayers),
    loras: loraMessages(request.loras),
    guidanceRescale: request.guidanceRescale,
    dynamicThresholding: request.dynamicThresholding,
    deepCacheInterval: request.deepCacheInterval,
    upscale: upscaleMessage(job),
    controls: controlMessages(request.controls),
    controlVideo: controlVideoUse(request.video?.control),
    embeddings: (request.embeddings ?? []).map(({ name }) => name),
    buildSeconds: 0,
    vramUsedBytes: undefined,
    vramTotalBytes: undefined,
    precisions: {},
    engine: engineName(spec),
    memoryMeasures: [],
  };
}

function skipLayersMessage(skipping: SkipLayers | undefined): SkipLayerGuidance | undefined {
  return skipping && { ...skipping, layers: [...skipping.layers] };
}

function enhancementFields({
  enhancement,
}: GenerateJob): Pick<JobMetadata, 'enhancedPrompt' | 'enhancementStrategy' | 'promptProblem' | 'enhancement'> {
  const isDone = enhancement?.strategy === 'qwen';
  return {
    enhancedPrompt: isDone ? enhancement.prompt : undefined,
    enhancementStrategy: enhancement?.strategy,
    promptProblem: enhancement?.strategy === 'fallback' ? enhancement.problem : undefined,
    enhancement: isDone ? enhancementMessage(enhancement) : undefined,
  };
}

/** An enhancement in the API's form. */
export function enhancementMessage(enhanced: Enhanced): Enhancement {
  return {
    model: enhanced.model,
    device: enhanced.device,
    promptTokens: enhanced.promptTokens,
    droppedTokens: enhanced.droppedTokens,
    newTokens: enhanced.newTokens,
    waitSeconds: enhanced.waitMs / 1000,
    firstTokenSeconds: enhanced.firstTokenMs / 1000,
    totalSeconds: enhanced.totalMs / 1000,
    reachedMaxTokens: enhanced.reachedMaxTokens,
  };
}

export interface WhatWasDone {
  readonly job: GenerateJob;
  readonly prompt: PromptReport | undefined;
  readonly timings: EngineTimings;
  /** Memory of the card at the end of the denoising, if there is a card. */
  readonly card: DeviceMemory | undefined;
}

/** Metadata of a completed job, with measured values. */
export function completedMetadata(planned: JobMetadata, { job, prompt, timings, card }: WhatWasDone): JobMetadata {
  return {
    ...planned,
    generationSeconds: timings.totalMs / 1000,
    encodeSeconds: timings.encodeMs / 1000,
    denoiseSeconds: timings.denoiseMs / 1000,
    decodeSeconds: timings.decodeMs / 1000,
    totalSizeBytes: job.assets.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0n),
    batchImages: timings.batchImages,
    memoryMeasures: [...timings.memoryMeasures],
    precisions: Object.fromEntries(timings.precisions.map(({ network, precision }) => [network, precision])),
    enginePeakBytes: BigInt(timings.peakBytes),
    forwards: timings.forwards,
    buildSeconds: timings.buildMs / 1000,
    ...(card && {
      vramUsedBytes: BigInt(card.totalBytes - card.freeBytes),
      vramTotalBytes: BigInt(card.totalBytes),
    }),
    promptTokens: prompt?.tokens,
    droppedTokens: prompt?.dropped,
    promptChunks: prompt?.chunks,
    ...(job.enhancement === undefined && { enhancementStrategy: prompt?.strategy, promptProblem: prompt?.problem }),
    finalPromptType: prompt && (prompt.strategy === 'compel' ? 'conditioning_tensor' : 'string'),
  };
}

import type { OutputOptions } from '../../engine/messages.js';
import type { GenerateRequest } from '../../gen/darkroom/v1/inference_service.js';
import { DisconnectPolicy } from '../../gen/darkroom/v1/job.js';
import type { GenerationRequest, ModelInfo } from '../../pipelines/pipeline.js';
import { assertNeeded } from './applied-references.js';
import { assertTakesControlVideo, type PlannedControlVideo, planControlVideo } from './control-video.js';
import { findControls, type PlannedControl, planControls } from './controls.js';
import { findEmbeddings } from './embeddings.js';
import { checkEnum } from './enum-values.js';
import { assertNoViolations, checkJobId, checkLabels, createCheck } from './field-checks.js';
import { checkLoras, findLoras, type NamedLoras, takeLoras } from './loras.js';
import { planFrames } from './plan-frames.js';
import { checkOutput, planOutput } from './plan-output.js';
import { planPrompt } from './plan-prompt.js';
import {
  checkSteps,
  planDeepCache,
  planGuidance,
  planGuidanceRescale,
  planSamplingPreset,
  planScheduler,
  planSteps,
  planThresholding,
} from './plan-sampling.js';
import { planSeeds } from './plan-seeds.js';
import { planSize } from './plan-size.js';
import { planSkipLayers } from './plan-skip-layers.js';
import { findUpscaler, planUpscale } from './plan-upscale.js';
import type { PlannedReferences } from './planned-references.js';
import { presetOf } from './presets.js';
import { planReferences } from './references.js';
import type { RequestContext } from './request-context.js';
import { planStepSaving } from './step-saving.js';

/** A request with its presets and defaults filled in. */
export interface JobPlan {
  /** What it was checked against. */
  readonly info: ModelInfo;
  /** Without the reference's image, which is fetched later. */
  readonly request: GenerationRequest;
  readonly output: OutputOptions;
  readonly references: PlannedReferences | undefined;
  /** Name of the settings of a distilled model that apply; undefined for none. */
  readonly samplingPreset: string | undefined;
  /** ControlNets, whose images are fetched later. Their files are in the request. */
  readonly controls: readonly PlannedControl[];
  /** Fetched later, as references are. */
  readonly controlVideo: PlannedControlVideo | undefined;
  /** The prompt as it was sent, with its LoRA signs. */
  readonly prompt: string;
  /** A language model rewrites the prompt first. */
  readonly isEnhanced: boolean;
}

/** A request and its texts without the LoRAs that they name. */
export interface ParsedRequest {
  readonly request: GenerateRequest;
  readonly named: NamedLoras;
}

export function parseRequest(request: GenerateRequest): ParsedRequest {
  return { request, named: takeLoras(request) };
}

/**
 * Checks a request and fills in presets and defaults, one planner a topic. A planner reports what the caller sent, once: it checks no
 * field of a message that the family does not take, and gives the next planners a value inside the bounds where it refused one.
 * @throws InferenceError INVALID_REQUEST with every bad field; LORA_NOT_FOUND, EMBEDDING_NOT_FOUND, CONTROLNET_NOT_FOUND, UPSCALER_NOT_FOUND and faults of such a file; FFMPEG_MISSING
 */
export function resolveRequest({ request, named }: ParsedRequest, context: RequestContext): JobPlan {
  const { config, jobTypes, model } = context;
  const { family, info } = model;
  const { check, violations } = createCheck();
  const preset = presetOf(request.jobType, family, jobTypes);
  const makes = preset?.makes ?? 'images';
  check(
    preset === undefined || preset.family === family.name,
    'model',
    `model "${request.model}" is of the family ${family.name}, the job_type needs ${preset?.family}; leave one of them out`,
  );
  check(preset !== undefined, 'job_type', `job_type ${request.jobType} is unknown; use a value of JobType`);
  checkJobId(request.jobId, check);
  checkLoras(named, check);
  const promptSyntax = planPrompt(request, context, check);
  const size = planSize(request, context, check);
  const sampling = planSamplingPreset(request, context, check);
  const steps = planSteps(request, sampling ?? preset, config, check);
  const limitBytes = config.REFERENCE_MAX_BYTES;
  const references = planReferences(
    request.references,
    { model, makes, steps, hasSteps: request.steps !== undefined, limitBytes, mask: request.mask },
    check,
  );
  const controls = planControls(request.controls, { family, families: context.families, limitBytes }, check);
  const controlVideo = planControlVideo(request.controlVideo, context, makes, check);
  const guidanceScale = planGuidance(request, { preset, sampling, references }, family, check);
  const guidanceRescale = planGuidanceRescale(request, context, check);
  const dynamicThresholding = planThresholding(request, guidanceScale, context, check);
  const saving = planStepSaving(request, context, check);
  const skipLayers = planSkipLayers(request, guidanceScale, context, check);
  const scheduler = planScheduler(request, sampling, family, check);
  const deepCacheInterval = planDeepCache(request, context, check);
  if (!violations.some(({ field }) => field === 'steps')) checkSteps('steps', steps, scheduler, info, check);
  const upscale = planUpscale(request, { ...size, steps }, context, check);
  // Without steps of its own, those of the request count, which are checked above.
  if (upscale !== undefined && upscale.strength > 0 && request.upscale?.steps)
    checkSteps('upscale.steps', upscale.steps, scheduler, info, check);
  const seeds = planSeeds(request, makes, family, check);
  const frames = planFrames(request, makes, model, config, check);
  checkEnum(DisconnectPolicy, 'DisconnectPolicy', 'disconnect_policy', request.disconnectPolicy, check);
  checkOutput(request, makes, check);
  checkLabels(request.labels, check);
  assertNoViolations(violations);
  if (preset === undefined) throw new Error('a request without a preset passed its checks');

  assertNeeded(references?.applied, { model: model.name, isVideo: makes === 'video', needs: info.frames?.needs });
  assertTakesControlVideo(controlVideo, model);
  const shift = sampling?.shift === undefined ? {} : { shift: sampling.shift };
  const loras = findLoras(named.loras, family, context.addOns.lora);
  const { prompt, weights } = named;
  const negativePrompt = request.negativePrompt ?? preset.negativePrompt(prompt, info.frames);
  const texts = { prompt, weights, negativePrompt: negativePrompt ?? '' };
  const embedded = findEmbeddings(texts, promptSyntax, family, context.addOns.embedding);
  return {
    info,
    request: {
      ...embedded.texts,
      negativePrompt: negativePrompt === undefined ? undefined : embedded.texts.negativePrompt,
      promptSyntax,
      ...size,
      steps,
      guidanceScale,
      ...(guidanceRescale > 0 && { guidanceRescale }),
      ...(dynamicThresholding && { dynamicThresholding }),
      ...(deepCacheInterval > 1 && { deepCacheInterval }),
      scheduler,
      seeds,
      previewsPerSecond: request.previewsPerSecond,
      ...(loras.length > 0 && { loras }),
      ...(controls.length > 0 && { controls: findControls(controls, family, context.addOns.controlnet) }),
      ...(upscale !== undefined && { upscale: findUpscaler(upscale, family, context.addOns.upscaler) }),
      ...(embedded.embeddings.length > 0 && { embeddings: embedded.embeddings }),
      ...(frames !== undefined && { video: { frames, ...saving, ...shift, ...(skipLayers && { skipLayers }) } }),
    },
    output: planOutput(request, makes, context),
    references,
    controls,
    controlVideo,
    samplingPreset: sampling?.name,
    prompt: request.prompt,
    isEnhanced: preset.isEnhanced,
  };
}

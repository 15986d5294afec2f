import { randomUUID } from 'node:crypto';
import type { JobsMemory } from '../engine/device-ledgers.js';
import type { Engine } from '../engine/engine.js';
import { InferenceError } from '../errors.js';
import type {
  EnhanceRequest,
  EstimateRequest,
  EstimateResponse,
  GenerateRequest,
  GenerateResponse,
  InferenceServiceServer,
  TokenizeRequest,
} from '../gen/darkroom/v1/inference_service.js';
import { DisconnectPolicy, JobType } from '../gen/darkroom/v1/job.js';
import { jobTypeOfValue } from '../job-types.js';
import { firstStep } from '../pipelines/common/batching.js';
import { passesOf, resultSize } from '../pipelines/common/passes.js';
import { type AnyFamily, familyNamed } from '../pipelines/family.js';
import type { GenerationRequest, ModelInfo } from '../pipelines/pipeline.js';
import type { Caller } from './access/caller.js';
import type { JobSize } from './access/quotas.js';
import { enhance } from './enhance/enhance.js';
import { enhanceForJob } from './enhance/enhance-for-job.js';
import type { EnhancementOutcome } from './enhance/enhancement.js';
import { modelNotFound } from './jobs/admission.js';
import { deviceMemoryOf } from './jobs/device-memory.js';
import { followJob } from './jobs/follow-job.js';
import { GenerateJob, type NewGenerateJob } from './jobs/generate-job.js';
import type { Job } from './jobs/job.js';
import { hashRequest } from './request/hash-request.js';
import { namesUpscaler } from './request/plan-upscale.js';
import { conditioningTexts, subjectOfRequest } from './request/policy.js';
import { type JobPlan, type ParsedRequest, parseRequest, resolveRequest } from './request/resolve.js';
import type { ServerState } from './state.js';
import { type CallContext, streaming, unary } from './stream.js';
import { tokenize } from './tokenize.js';

export function createInferenceService(state: ServerState): InferenceServiceServer {
  return {
    generate: streaming(state.calls, (request: GenerateRequest, context) => generate(state, request, context)),
    enhance: streaming(state.calls, (request: EnhanceRequest, context) => enhance(state, request, context)),
    estimate: unary(state.calls, async ({ request }: EstimateRequest, { caller, signal }) => {
      if (request === undefined) {
        const description = 'request must be set: the job to estimate';
        throw new InferenceError('INVALID_REQUEST', description, { violations: [{ field: 'request', description }] });
      }
      return estimate(state, await parse(state, request), { caller, signal });
    }),
    tokenize: unary(state.calls, async (request: TokenizeRequest) => {
      const { spec } = engineOf(state, request.model || tokenizedModel(state));
      const { embedding } = state.addOns;
      if (embedding.isConfigured) await embedding.refresh();
      const family = familyNamed(state.families, spec.family);
      const tokenizer = await state.tokenizers.of(spec);
      return tokenize(request, tokenizer, { limitBytes: state.config.LIMIT_PROMPT_BYTES, family, embedding });
    }),
  };
}

async function* generate(
  state: ServerState,
  request: GenerateRequest,
  context: CallContext,
): AsyncGenerator<GenerateResponse, void, undefined> {
  const parsed = await parse(state, request);
  const hashed = { ...parsed, requestHash: hashRequest(parsed.request) };
  const job = attach(state, context.caller, hashed) ?? (await submit(state, hashed, context));
  const cancelsOnLeave = request.disconnectPolicy !== DisconnectPolicy.DISCONNECT_POLICY_CONTINUE;
  for await (const event of followJob(job, context.signal, { cancelsOnLeave })) yield { event };
}

/** Parses a request. If it names LoRAs, ControlNets or an upscaler, refreshes their lists; that of embeddings, whose names are plain words, if there may be any. */
async function parse(state: ServerState, request: GenerateRequest): Promise<ParsedRequest> {
  const parsed = parseRequest(request);
  const { lora, embedding, controlnet, upscaler } = state.addOns;
  if (namesUpscaler(request.upscale)) await upscaler.refresh();
  if (parsed.named.loras.length > 0) await lora.refresh();
  if (request.controls.length > 0) await controlnet.refresh();
  if (embedding.isConfigured) await embedding.refresh();
  return parsed;
}

interface HashedRequest extends ParsedRequest {
  readonly requestHash: string;
}

function attach(state: ServerState, caller: Caller, { request, requestHash }: HashedRequest): Job | undefined {
  return state.jobs.attach(caller, request.jobId, requestHash);
}

/** Starts a new job, unless another call starts it while the moderation service is asked. */
async function submit(state: ServerState, hashed: HashedRequest, context: CallContext): Promise<Job> {
  const { signal, caller, call } = context;
  const { request, requestHash } = hashed;
  const { model, plan } = await planOf(state, hashed, context);
  const subject = subjectOfRequest(request, caller);
  await state.policy.moderate(conditioningTexts(plan.request), { subject, signal });
  const known = attach(state, caller, hashed);
  if (known !== undefined) return known;
  state.admission.assertRoom(model);
  assertMemory(state, model, plan);
  state.access.quotas.start(caller, state.jobs.inFlight(caller.name));
  const id = request.jobId || randomUUID();
  const { jobType } = request;
  const job = new GenerateJob({
    id,
    owner: caller.name,
    // Without tokens, users take turns.
    turnKey: caller.name || request.labels.user_id,
    requestHash,
    jobType,
    model,
    plan,
    prepare: preparationOf(state, plan, request.labels.user_id),
  });
  state.jobs.add(job);
  state.calls.observer.jobAccepted(job, call);
  state.admission.submit(job);
  return job;
}

/** @throws InferenceError OUT_OF_MEMORY for a job that no engine of the model can ever run */
function assertMemory(state: ServerState, model: string, plan: JobPlan): void {
  const memory = plannedMemory(engineOf(state, model), plan);
  if (memory === undefined) return;
  const engines = state.engines.filter((engine) => engine.spec.model === model);
  state.memory.assertCanFit(engines, memory);
}

/** What a job takes on its device. Undefined while the engine has not reported what its networks take. */
function plannedMemory({ info, spec }: Engine, { request, references, controlVideo }: JobPlan): JobsMemory | undefined {
  const options = {
    hasReferences: references !== undefined || controlVideo !== undefined,
    batchPixels: spec.batchPixels,
  };
  return info?.memory && deviceMemoryOf(info.memory, request, options);
}

/** Prepares a job: fetches its references while its prompt is enhanced. Undefined if it needs neither. */
function preparationOf(
  state: ServerState,
  { references, controls, controlVideo, request, output, isEnhanced }: JobPlan,
  user = '',
): NewGenerateJob['prepare'] {
  const isBare = references === undefined && controls.length === 0 && controlVideo === undefined;
  if (isBare && !isEnhanced) return undefined;
  const sources = controls.flatMap(({ source }) => source ?? []);
  return async (job) => {
    // If one of the two fails, the other one is aborted.
    const both = new AbortController();
    const signal = AbortSignal.any([job.signal, both.signal]);
    try {
      const ffmpeg = output.video?.ffmpeg ?? '';
      const [loaded, images, control, enhancement] = await Promise.all([
        references && state.references.load(references, request, { user, signal }),
        state.references.loadControls(sources, request, { user, signal }),
        controlVideo && state.references.loadControlVideo(controlVideo, request, ffmpeg, { user, signal }),
        isEnhanced ? enhanceObserved(state, job, signal) : undefined,
      ]);
      const drawn = request.controls?.map((control, i) => ({ ...control, rgb: images[i] ?? control.rgb }));
      const video = loaded?.video ?? request.video;
      const followed = control && video && { video: { ...video, control } };
      return { references: { ...loaded, ...followed, ...(drawn && { controls: drawn }) }, enhancement };
    } catch (error) {
      both.abort(error);
      throw error;
    }
  };
}

async function enhanceObserved(
  { enhancement, calls }: ServerState,
  job: GenerateJob,
  signal: AbortSignal,
): Promise<EnhancementOutcome> {
  const startedMs = Date.now();
  const outcome = await enhanceForJob(job, signal, enhancement);
  calls.observer.promptEnhanced(job, outcome, startedMs);
  return outcome;
}

/** Checks everything that is refused before a job exists. Waits until the checkpoint of its model was read. */
async function planOf(
  state: ServerState,
  parsed: ParsedRequest,
  { caller, signal }: Pick<CallContext, 'caller' | 'signal'>,
): Promise<{ readonly model: string; readonly plan: JobPlan }> {
  const { request } = parsed;
  const needed = jobTypeOfValue(state.jobTypes, request.jobType)?.family ?? state.families[0].name;
  const model = request.model || modelOfFamily(state, familyNamed(state.families, needed));
  if (request.model === '' && request.jobType === JobType.JOB_TYPE_UNSPECIFIED) assertServed(state, model);
  const { spec, info = await describedModel(state, model, signal) } = engineOf(state, model);
  const family = familyNamed(state.families, spec.family);
  const plan = resolveRequest(parsed, { ...state, model: { name: model, family, info } });
  // As written, and as the model sees it: text on both sides of a LoRA sign becomes one word once the sign is gone.
  const { positive, negative } = conditioningTexts(plan.request);
  const texts = { positive: [request.prompt, request.weights, ...positive], negative };
  state.policy.assert(texts, 'the prompt', subjectOfRequest(request, caller));
  state.access.quotas.assertSize(caller, sizeOf(plan.request));
  return { model, plan };
}

function sizeOf(request: GenerationRequest): JobSize {
  const { width, height } = resultSize(request);
  const { seeds, video } = request;
  return { pixels: width * height * seeds.length, frames: video?.frames ?? 0 };
}

async function estimate(
  state: ServerState,
  parsed: ParsedRequest,
  context: Pick<CallContext, 'caller' | 'signal'>,
): Promise<EstimateResponse> {
  const { model, plan } = await planOf(state, parsed, context);
  const share = plan.references?.denoisingStrength;
  const init = share === undefined ? undefined : { rgb: new Uint8Array(), strength: share };
  const request = { ...plan.request, init };
  const { seconds, peakBytes, queueSeconds } = state.admission.estimate(model, request);
  const onDevice = plannedMemory(engineOf(state, model), plan);
  return {
    seconds: seconds ?? 0,
    peakMemoryBytes: BigInt(peakBytes ?? 0),
    ...resultSize(request),
    frames: request.video?.frames ?? 0,
    queueSeconds: queueSeconds ?? 0,
    denoisingSteps: passesOf(request).reduce((steps, pass) => steps + pass.steps - firstStep(pass), 0),
    deviceWeightBytes: BigInt(onDevice?.weightBytes ?? 0),
    devicePeakBytes: BigInt(onDevice?.peakBytes ?? 0),
  };
}

/**
 * Waits for the description of a model whose checkpoint none of its engines has read yet.
 * @throws InferenceError the reason why none can; DRAINING; QUEUE_FULL where too many calls wait
 */
async function describedModel(state: ServerState, model: string, signal: AbortSignal): Promise<ModelInfo> {
  const end = state.admission.expect(model);
  const first = new AbortController();
  const either = AbortSignal.any([signal, state.admission.drainSignal, first.signal]);
  try {
    return await Promise.any(state.admission.slots(model).map(({ engine }) => engine.whenDescribed(either)));
  } catch (error) {
    throw (error as AggregateError).errors[0];
  } finally {
    end();
    first.abort();
  }
}

/** Name of the server's model of a family; without one, the configured name. */
function modelOfFamily({ engines, config }: ServerState, family: AnyFamily): string {
  return engines.find(({ spec }) => spec.family === family.name)?.spec.model ?? family.modelName(config);
}

/** Name of the model that Tokenize uses if the request names none. */
function tokenizedModel(state: ServerState): string {
  const served = state.families.find(({ openTokenizer }) => openTokenizer !== undefined);
  return modelOfFamily(state, served ?? state.families[0]);
}

/** @throws InferenceError MODEL_NOT_FOUND for a request that leaves the model to the server, which has none of the first family */
function assertServed(state: ServerState, model: string): void {
  if (state.engine(model) !== undefined) return;
  const served = [...new Set(state.engines.map(({ spec }) => spec.model))];
  throw new InferenceError(
    'MODEL_NOT_FOUND',
    `a request without model and job_type is for ${state.families[0].title}, which is not served; name a job_type, or one of the models ${served.join(', ') || '(there are none)'}`,
  );
}

function engineOf(state: ServerState, model: string): Engine {
  const engine = state.engine(model);
  if (engine !== undefined) return engine;
  throw modelNotFound(model, [...new Set(state.engines.map(({ spec }) => spec.model))]);
}

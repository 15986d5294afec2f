import { randomUUID } from 'node:crypto';
import type { Supervisor } from '../engine/supervisor.js';
import { InferenceError } from '../errors.js';
import type {
  EstimateRequest,
  EstimateResponse,
  GenerateRequest,
  GenerateResponse,
  InferenceServiceServer,
  TokenizeRequest,
} from '../gen/darkroom/v1/inference_service.js';
import { DisconnectPolicy } from '../gen/darkroom/v1/job.js';
import { firstStep } from '../pipelines/batching.js';
import type { Family } from '../pipelines/pipeline.js';
import { modelNotFound } from './admission.js';
import { Job } from './job.js';
import { assertPolicy } from './policy.js';
import { presetOf } from './presets.js';
import type { ServerState } from './state.js';
import { type CallContext, streaming, unary } from './stream.js';
import { tokenize } from './tokenize.js';
import { hashRequest, type JobPlan, resolveRequest } from './validate.js';

export function createInferenceService(state: ServerState): InferenceServiceServer {
  const notServed = (what: string) => (): never => {
    throw new InferenceError('NOT_SERVED_YET', `${what} is not served by this version`);
  };
  return {
    generate: streaming(state.calls, (request: GenerateRequest, context) => generate(state, request, context)),
    enhance: streaming(state.calls, notServed('Enhance')),
    estimate: unary(state.calls, ({ request }: EstimateRequest) => estimate(state, request)),
    tokenize: unary(state.calls, async (request: TokenizeRequest) => {
      const { spec } = engineOf(state, request.model || state.config.SDXL_NAME);
      return tokenize(request, await state.tokenizers.of(spec), state.config.LIMIT_PROMPT_BYTES);
    }),
  };
}

async function* generate(
  state: ServerState,
  request: GenerateRequest,
  { signal }: CallContext,
): AsyncGenerator<GenerateResponse, void, undefined> {
  const job = attachOrSubmit(state, request);
  const leave = () => {
    // This stream still counts among the watchers.
    if (request.disconnectPolicy !== DisconnectPolicy.DISCONNECT_POLICY_CONTINUE && job.watchers <= 1) {
      job.cancel(InferenceError.from(signal.reason));
    }
  };
  signal.addEventListener('abort', leave, { once: true });
  for await (const event of job.watch(0, signal)) yield { event };
  signal.removeEventListener('abort', leave);
  if (job.error !== undefined) throw job.error;
}

function attachOrSubmit(state: ServerState, request: GenerateRequest): Job {
  const requestHash = hashRequest(request);
  const known = request.jobId === '' ? undefined : state.jobs.find(request.jobId);
  if (known !== undefined) {
    if (known.requestHash === requestHash) return known;
    throw new InferenceError(
      'JOB_ID_CONFLICT',
      `job_id "${request.jobId}" belongs to a job with another body; use a new id, or send the same body to attach`,
    );
  }
  const { model, plan } = planOf(state, request);
  state.admission.assertRoom(model);
  const id = request.jobId || randomUUID();
  const { references } = plan;
  const job = new Job({
    id,
    requestHash,
    jobType: request.jobType,
    model,
    plan,
    ...(references && { prepare: (signal) => state.references.load(references, plan.request, signal) }),
  });
  state.jobs.add(job);
  state.admission.submit(job);
  return job;
}

/** Everything that is refused before a job exists. */
function planOf(state: ServerState, request: GenerateRequest): { readonly model: string; readonly plan: JobPlan } {
  const model = request.model || modelOfFamily(state, presetOf(request.jobType)?.family ?? 'sdxl');
  const { spec, info } = engineOf(state, model);
  const plan = resolveRequest(request, state.config, { name: model, family: spec.family, info }, state.ffmpeg);
  assertPolicy(`${request.prompt} ${request.weights}`);
  return { model, plan };
}

function estimate(state: ServerState, request: GenerateRequest | undefined): EstimateResponse {
  if (request === undefined) {
    const description = 'request must be set: the job to estimate';
    throw new InferenceError('INVALID_REQUEST', description, { violations: [{ field: 'request', description }] });
  }
  const { model, plan } = planOf(state, request);
  const share = plan.references?.denoisingStrength;
  const init = share === undefined ? undefined : { rgb: new Uint8Array(), strength: share };
  const { width, height, ...rest } = { ...plan.request, init };
  const { seconds, peakBytes, queueSeconds } = state.admission.estimate(model, { width, height, ...rest });
  return {
    seconds: seconds ?? 0,
    peakMemoryBytes: BigInt(peakBytes ?? 0),
    width,
    height,
    frames: rest.clip?.frames ?? 0,
    queueSeconds: queueSeconds ?? 0,
    denoisingSteps: rest.steps - firstStep(rest),
  };
}

/** The server's own model of the family. */
function modelOfFamily({ engines, config }: ServerState, family: Family): string {
  const own = engines.find(({ spec }) => spec.family === family)?.spec.model;
  return own ?? { sdxl: config.SDXL_NAME, wan: config.WAN_NAME }[family];
}

function engineOf(state: ServerState, model: string): Supervisor {
  const engine = state.engine(model);
  if (engine !== undefined) return engine;
  throw modelNotFound(
    model,
    state.engines.map(({ spec }) => spec.model),
  );
}

import { createHash, randomInt, randomUUID } from 'node:crypto';
import type { EnhanceRequest as ResolvedRequest } from '../../enhancer/enhancer.js';
import { MAX_NEW_TOKENS } from '../../enhancer/template.js';
import { InferenceError } from '../../errors.js';
import { EnhanceRequest, type EnhanceResponse } from '../../gen/darkroom/v1/inference_service.js';
import { JobMetadata, JobType } from '../../gen/darkroom/v1/job.js';
import { version } from '../../version.js';
import type { Caller } from '../access/caller.js';
import { modelNotFound } from '../jobs/admission.js';
import { endJob } from '../jobs/end-job.js';
import { followJob } from '../jobs/follow-job.js';
import { Job } from '../jobs/job.js';
import { enhancementMessage } from '../jobs/metadata.js';
import { assertNoViolations, checkJobId, checkText, createCheck } from '../request/field-checks.js';
import { subjectOfRequest } from '../request/policy.js';
import type { ServerState } from '../state.js';
import type { CallContext } from '../stream.js';
import { loadingEvent } from './enhance-for-job.js';
import type { EnhanceDefaults } from './enhancement.js';
import type { PromptEnhancer } from './prompt-enhancer.js';

const MAX_TEMPERATURE = 2;
const SEEDS = 2 ** 32;

/** Serves one Enhance call: the events of its job, the last one with the enhanced prompt. */
export async function* enhance(
  state: ServerState,
  request: EnhanceRequest,
  context: CallContext,
): AsyncGenerator<EnhanceResponse, void, undefined> {
  const hashed = { request, requestHash: hashEnhanceRequest(request) };
  const job = attach(state, context.caller, hashed) ?? (await start(state, hashed, context));
  for await (const event of followJob(job, context.signal, { cancelsOnLeave: true })) {
    const done = event.event?.$case === 'completed' ? event.event.value.metadata : undefined;
    yield { event, enhancedPrompt: done?.enhancedPrompt ?? '', strategy: done?.enhancementStrategy ?? '' };
  }
}

interface HashedRequest {
  readonly request: EnhanceRequest;
  readonly requestHash: string;
}

function attach(state: ServerState, caller: Caller, { request, requestHash }: HashedRequest): Job | undefined {
  return state.jobs.attach(caller, request.jobId, requestHash);
}

/** Starts a new job, unless another call starts it while the moderation service is asked. */
async function start(state: ServerState, hashed: HashedRequest, { signal, caller, call }: CallContext): Promise<Job> {
  const { request, requestHash } = hashed;
  const { enhancer, defaults } = state.enhancement;
  const resolved = resolveEnhanceRequest(request, defaults, state.config.LIMIT_PROMPT_BYTES);
  const texts = { positive: [request.prompt] };
  const subject = subjectOfRequest(request, caller);
  state.policy.assert(texts, 'the prompt', subject);
  await state.policy.moderate(texts, { subject, signal });
  const known = attach(state, caller, hashed);
  if (known !== undefined) return known;
  if (enhancer === undefined || (request.model !== '' && request.model !== enhancer.model)) {
    throw enhancerNotFound(request.model, enhancer);
  }
  state.admission.assertNotDraining();
  enhancer.assertRoom();
  state.access.quotas.start(caller, state.jobs.inFlight(caller.name));
  const id = request.jobId || randomUUID();
  const owner = caller.name;
  const job = new Job({ id, owner, requestHash, jobType: JobType.JOB_TYPE_UNSPECIFIED, model: enhancer.model });
  state.jobs.add(job);
  state.calls.observer.jobAccepted(job, call);
  void run(state, enhancer, job, resolved);
  return job;
}

async function run(
  { jobs, calls: { log, observer } }: ServerState,
  enhancer: PromptEnhancer,
  job: Job,
  request: ResolvedRequest,
): Promise<void> {
  const planned = (device: string): JobMetadata =>
    JobMetadata.fromPartial({
      model: job.model,
      device,
      seed: BigInt(request.seed),
      originalPrompt: request.prompt,
      serverVersion: version,
    });
  try {
    const enhanced = await enhancer.enhanceCall(job, request, job.signal, {
      onPosition: (position) => job.emit({ $case: 'queued', value: { position, etaSeconds: undefined } }),
      onLoading: (progress) => job.emit({ $case: 'modelLoading', value: loadingEvent(job.model, progress) }),
      onStarted: (device) => {
        observer.jobsStarted([job]);
        job.emit({ $case: 'started', value: { metadata: planned(device) } });
      },
      onText: (text) => job.emit({ $case: 'textDelta', value: { text } }),
    });
    const metadata: JobMetadata = {
      ...planned(enhanced.device),
      queueSeconds: enhanced.waitMs / 1000,
      generationSeconds: enhanced.totalMs / 1000,
      enhancedPrompt: enhanced.prompt,
      enhancementStrategy: 'qwen',
      enhancement: enhancementMessage(enhanced),
    };
    job.emit({ $case: 'completed', value: { metadata, assets: [] } });
    endJob(job, undefined, { log, jobs, observer });
  } catch (error) {
    endJob(job, error, { log, jobs, observer });
  }
}

/** @throws InferenceError INVALID_REQUEST with every bad field */
function resolveEnhanceRequest(
  request: EnhanceRequest,
  defaults: EnhanceDefaults,
  limitBytes: number,
): ResolvedRequest {
  const { check, violations } = createCheck();
  const { prompt } = request;
  const { maxTokens, temperature, topP } = defaults;
  const resolved = {
    prompt,
    maxTokens: request.maxTokens ?? maxTokens,
    temperature: request.temperature ?? temperature,
    topP: request.topP ?? topP,
    seed: request.seed === undefined ? (defaults.seed ?? randomInt(SEEDS)) : Number(request.seed),
  };
  checkJobId(request.jobId, check);
  checkText('prompt', prompt, limitBytes, check);
  check(prompt.trim() !== '', 'prompt', 'prompt must not be empty: there is nothing to enrich');
  check(
    resolved.maxTokens >= 1 && resolved.maxTokens <= MAX_NEW_TOKENS,
    'max_tokens',
    `max_tokens ${resolved.maxTokens} must be >= 1 and <= ${MAX_NEW_TOKENS}`,
  );
  check(
    resolved.temperature >= 0 && resolved.temperature <= MAX_TEMPERATURE,
    'temperature',
    `temperature ${resolved.temperature} must be >= 0 and <= ${MAX_TEMPERATURE}`,
  );
  check(resolved.topP > 0 && resolved.topP <= 1, 'top_p', `top_p ${resolved.topP} must be > 0 and <= 1`);
  check(
    resolved.seed >= 0 && resolved.seed <= Number.MAX_SAFE_INTEGER,
    'seed',
    `seed ${request.seed} must be >= 0 and <= ${Number.MAX_SAFE_INTEGER}`,
  );
  assertNoViolations(violations);
  return resolved;
}

function enhancerNotFound(model: string, enhancer: PromptEnhancer | undefined): InferenceError {
  if (enhancer !== undefined) return modelNotFound(model, [enhancer.model]);
  return new InferenceError(
    'MODEL_NOT_FOUND',
    'this server has no language model; it is started with --qwen PATH (QWEN_PATH)',
  );
}

/** The prefix keeps Enhance and Generate requests with equal bytes apart. */
function hashEnhanceRequest(request: EnhanceRequest): string {
  return createHash('sha256')
    .update('enhance ')
    .update(EnhanceRequest.encode({ ...request, jobId: '' }).finish())
    .digest('hex');
}

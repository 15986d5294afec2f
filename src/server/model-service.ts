import type { Engine, EngineState } from '../engine/engine.js';
import { InferenceError } from '../errors.js';
import {
  type LoraInfo,
  Model,
  type ModelServiceServer,
  ModelServiceService,
  ModelState,
  NetworkPrecision,
} from '../gen/darkroom/v1/model_service.js';
import { version } from '../version.js';
import type { PromptEnhancer } from './enhance/prompt-enhancer.js';
import { type Admission, modelNotFound } from './jobs/admission.js';
import type { KnownLora } from './request/lora-registry.js';
import type { ServerState } from './state.js';
import { type CallContext, unary } from './stream.js';

const STATES: Readonly<Record<EngineState, ModelState>> = {
  starting: ModelState.MODEL_STATE_LOADING,
  ready: ModelState.MODEL_STATE_READY,
  busy: ModelState.MODEL_STATE_BUSY,
  restarting: ModelState.MODEL_STATE_RESTARTING,
  failed: ModelState.MODEL_STATE_FAILED,
  stopped: ModelState.MODEL_STATE_UNLOADED,
};

export function createModelService(state: ServerState): ModelServiceServer {
  const { enhancer } = state.enhancement;
  const models = () => [
    ...state.engines.map((engine) => describeModel(engine, state.admission)),
    ...(enhancer ? [describeEnhancer(enhancer)] : []),
  ];
  const modelsWithLoras = async () => {
    await state.loras.refresh();
    return models().map((model) => {
      const family = state.families.find(({ name }) => name === model.family);
      return family === undefined ? model : { ...model, loras: state.loras.of(family).map(describeLora) };
    });
  };
  return {
    listModels: unary(state.calls, async () => ({ models: await modelsWithLoras() })),
    loadModel: unary(state.calls, async ({ name }, context) => {
      record(state, context, ModelServiceService.loadModel.path, name);
      const onDemand = enhancerNamed(state, name);
      const lease = await onDemand.onDemand.acquire(new AbortController().signal, () => undefined);
      lease.release();
      return { model: describeEnhancer(onDemand) };
    }),
    unloadModel: unary(state.calls, async ({ name }, context) => {
      record(state, context, ModelServiceService.unloadModel.path, name);
      const onDemand = enhancerNamed(state, name);
      await onDemand.onDemand.unload();
      return { model: describeEnhancer(onDemand) };
    }),
    getServerStatus: unary(state.calls, () => ({
      version,
      uptimeSeconds: process.uptime(),
      draining: state.admission.draining,
      runningJobs: state.admission.running,
      queuedJobs: state.admission.waiting,
      queueLimit: state.config.LIMIT_QUEUE,
      residentBytes: BigInt(process.memoryUsage.rss()),
      models: models(),
    })),
  };
}

/** Admin calls are recorded before they act. */
function record(
  { access: { audit } }: ServerState,
  { caller, peer }: Pick<CallContext, 'caller' | 'peer'>,
  method: string,
  name: string,
): void {
  audit?.record({ kind: 'admin', token: caller.name, peer, method, subject: name.slice(0, 64) });
}

/** @throws InferenceError MODEL_NOT_FOUND; MODEL_UNSUPPORTED for a model that always stays loaded */
function enhancerNamed({ engines, enhancement: { enhancer } }: ServerState, name: string): PromptEnhancer {
  if (enhancer?.model === name) return enhancer;
  const residents = engines.map(({ spec }) => spec.model);
  if (!residents.includes(name)) throw modelNotFound(name, [...residents, ...(enhancer ? [enhancer.model] : [])]);
  throw new InferenceError(
    'MODEL_UNSUPPORTED',
    `model "${name}" stays loaded as long as the server runs; only a language model is loaded on demand`,
  );
}

function describeEnhancer({ onDemand: { engine }, model }: PromptEnhancer): Model {
  const { info } = engine;
  return Model.fromPartial({
    name: model,
    family: 'qwen',
    state: STATES[engine.state],
    device: engine.device ?? '',
    parameters: BigInt(info?.parameters ?? 0),
    weightBytes: BigInt(info?.weightBytes ?? 0),
    storage: info?.storage ?? '',
    residentBytes: BigInt(engine.residentBytes ?? 0),
    restarts: engine.restarts,
    problem: engine.failure?.message ?? '',
  });
}

function describeLora({ name, summary, problem }: KnownLora): LoraInfo {
  return {
    name,
    base: summary?.base ?? '',
    format: summary?.format ?? '',
    rank: summary?.rank ?? 0,
    modules: summary?.modules ?? 0,
    sizeBytes: BigInt(summary?.sizeBytes ?? 0),
    trainedTags: [...(summary?.tags ?? [])],
    problem: problem?.message ?? '',
  };
}

function describeModel(engine: Engine, admission: Admission): Model {
  const { info } = engine;
  const { keys, builds } = admission.variants(engine.spec.model);
  return {
    name: engine.spec.model,
    family: engine.spec.family,
    state: STATES[engine.state],
    device: engine.device ?? '',
    parameters: BigInt(info?.parameters ?? 0),
    weightBytes: BigInt(info?.weightBytes ?? 0),
    storage: info?.storage ?? '',
    predictionType: info?.predictionType ?? '',
    schedulers: [...(info?.schedulers ?? [])],
    nativeSize: Math.max(info?.nativeWidth ?? 0, info?.nativeHeight ?? 0),
    nativeWidth: info?.nativeWidth ?? 0,
    nativeHeight: info?.nativeHeight ?? 0,
    sizeMultiple: info?.sizeMultiple ?? 0,
    residentBytes: BigInt(engine.residentBytes ?? 0),
    restarts: engine.restarts,
    problem: engine.failure?.message ?? '',
    loras: [],
    variants: keys.length,
    variantBuilds: builds,
    networks: admission.precisions(engine.spec.model).map((network) => NetworkPrecision.fromPartial(network)),
  };
}

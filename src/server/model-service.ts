import type { Config } from '../config/server-config.js';
import { deviceName } from '../device.js';
import type { DeviceLedgers } from '../engine/device-ledgers.js';
import type { Engine, EngineState } from '../engine/engine.js';
import { engineName, type Work } from '../engine/messages.js';
import { InferenceError } from '../errors.js';
import { ReferenceRole } from '../gen/darkroom/v1/job.js';
import {
  type ControlNetInfo,
  type EmbeddingInfo,
  EngineStatus,
  type LoraInfo,
  Model,
  type ModelServiceServer,
  ModelServiceService,
  ModelState,
  NetworkPrecision,
  type SamplingPreset,
  type UpscalerInfo,
} from '../gen/darkroom/v1/model_service.js';
import type { ControlNetSummary } from '../pipelines/controlnets/controlnet-summary.js';
import type { EmbeddingSummary } from '../pipelines/embeddings/embedding-summary.js';
import type { AnyFamily } from '../pipelines/family.js';
import type { LoraSummary } from '../pipelines/lora/lora-summary.js';
import type { FramePlace, ModelInfo } from '../pipelines/pipeline.js';
import type { UpscalerSummary } from '../pipelines/upscalers/upscaler-summary.js';
import { version } from '../version.js';
import type { PromptEnhancer } from './enhance/prompt-enhancer.js';
import { modelNotFound } from './jobs/admission.js';
import type { EngineSlot } from './jobs/engine-slot.js';
import type { KnownAddOn } from './request/add-on-registry.js';
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
    ...[...new Set(state.engines.map(({ spec }) => spec.model))].map((model) =>
      describeModel(state.admission.slots(model), state.memory),
    ),
    ...(enhancer ? [describeEnhancer(enhancer)] : []),
  ];
  const modelsWithAddOns = async () => {
    const { lora, embedding, controlnet, upscaler } = state.addOns;
    await Promise.all([lora, embedding, controlnet, upscaler].map((registry) => registry.refresh()));
    return models().map((model) => {
      const family = state.families.find(({ name }) => name === model.family);
      if (family === undefined) return model;
      const loras = lora.of(family).map(describeLora);
      const embeddings = embedding.of(family).map(describeEmbedding);
      const controlnets = controlnet.of(family).map(describeControlNet);
      const upscalers = upscaler.of(family).map(describeUpscaler);
      const info = infoOf(state.admission.slots(model.name));
      return {
        ...model,
        loras,
        embeddings,
        controlnets,
        upscalers,
        takes: fieldsOf(family, info),
        samplingPresets: samplingPresetsOf(family, state.config),
      };
    });
  };
  return {
    listModels: unary(state.calls, async () => ({ models: await modelsWithAddOns() })),
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
  const residents = [...new Set(engines.map(({ spec }) => spec.model))];
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
    engines: [describeEngine(engine)],
  });
}

function describeEngine<
  W extends Work & { readonly spec: { readonly device: string; readonly deviceId?: number | undefined } },
>(engine: Engine<W>): EngineStatus {
  const { spec, device = spec.device } = engine;
  return EngineStatus.fromPartial({
    name: engineName(spec),
    device: deviceName(device, spec.deviceId ?? 0),
    state: STATES[engine.state],
    residentBytes: BigInt(engine.residentBytes ?? 0),
    peakBytes: BigInt(engine.peakBytes ?? 0),
    restarts: engine.restarts,
    problem: engine.failure?.message ?? '',
  });
}

function describeSlot({
  engine,
  running,
  variants,
  precisions = engine.info?.precisions ?? [],
}: EngineSlot): EngineStatus {
  return {
    ...describeEngine(engine),
    runningJobs: running.length,
    variants: variants.keys.length,
    variantBuilds: variants.builds,
    networks: precisions.map((network) => NetworkPrecision.fromPartial(network)),
  };
}

function describeLora({ name, summary, problem }: KnownAddOn<LoraSummary>): LoraInfo {
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

function describeEmbedding({ name, summary, problem }: KnownAddOn<EmbeddingSummary>): EmbeddingInfo {
  return {
    name,
    base: summary?.base ?? '',
    format: summary?.format ?? '',
    vectors: Math.max(0, ...(summary?.counts ?? [])),
    sizeBytes: BigInt(summary?.sizeBytes ?? 0),
    problem: problem?.message ?? '',
  };
}

function describeControlNet({ name, summary, problem }: KnownAddOn<ControlNetSummary>): ControlNetInfo {
  return {
    name,
    base: summary?.base ?? '',
    layout: summary?.layout ?? '',
    modes: summary?.modes ?? 0,
    parameters: BigInt(summary?.parameters ?? 0),
    sizeBytes: BigInt(summary?.sizeBytes ?? 0),
    problem: problem?.message ?? '',
  };
}

/** Optional fields of a request that have an effect with a model. @param info undefined until its checkpoint was read */
function fieldsOf(
  { takes, loraBase, references, video, samplingPresets }: AnyFamily,
  info: ModelInfo | undefined,
): string[] {
  const fields: Readonly<Record<string, boolean>> = {
    weights: takes.weights,
    loras: loraBase !== undefined,
    frames: video !== undefined,
    guidance_interval: takes.stepSaving,
    reuse_threshold: takes.stepSaving,
    skip_layer_guidance: takes.skipLayers,
    mask: references.takesMask === true,
    controls: takes.controls,
    guidance_rescale: takes.guidanceRescale,
    dynamic_thresholding: takes.dynamicThresholding,
    upscale: takes.upscale,
    deep_cache_interval: takes.deepCache,
    sampling_preset: Object.keys(samplingPresets).length > 0,
    control_video: takes.controlVideo && info?.frames?.takesControlVideo === true,
  };
  return Object.keys(fields).filter((name) => fields[name]);
}

function samplingPresetsOf(family: AnyFamily, config: Config): SamplingPreset[] {
  const chosen = family.samplingPreset?.(config);
  return Object.entries(family.samplingPresets).map(([name, { scheduler, steps, guidanceScale }]) => {
    return { name, scheduler, steps, guidanceScale, isDefault: name === chosen };
  });
}

function describeUpscaler({ name, summary, problem }: KnownAddOn<UpscalerSummary>): UpscalerInfo {
  return {
    name,
    architecture: summary?.architecture ?? '',
    scale: summary?.scale ?? 0,
    parameters: BigInt(summary?.parameters ?? 0),
    sizeBytes: BigInt(summary?.sizeBytes ?? 0),
    problem: problem?.message ?? '',
  };
}

const ROLES: Readonly<Record<FramePlace, ReferenceRole>> = {
  start: ReferenceRole.REFERENCE_ROLE_START,
  end: ReferenceRole.REFERENCE_ROLE_END,
  look: ReferenceRole.REFERENCE_ROLE_LOOK,
};

/** States of a model's engines, from the one that can take a job at once to the one that never will. */
const NEAREST: readonly EngineState[] = ['ready', 'busy', 'starting', 'restarting', 'stopped', 'failed'];

/** What a model's engines say of it. Undefined until one of them has read its checkpoint. */
function infoOf(slots: readonly EngineSlot[]): ModelInfo | undefined {
  return slots.find(({ engine }) => engine.info)?.engine.info;
}

/** A model as its engines are together: they have one checkpoint. */
function describeModel(slots: readonly EngineSlot[], memory: DeviceLedgers): Model {
  const engines = slots.map((slot) => ({
    ...describeSlot(slot),
    deviceBytes: BigInt(Math.round(memory.heldBytes(slot.engine))),
  }));
  const [nearest] = slots
    .map(({ engine }) => engine)
    .sort((a, b) => NEAREST.indexOf(a.state) - NEAREST.indexOf(b.state)) as [Engine];
  const { spec, state, device, failure } = nearest;
  const info = infoOf(slots);
  return {
    name: spec.model,
    family: spec.family,
    state: STATES[state],
    device: device ?? '',
    parameters: BigInt(info?.parameters ?? 0),
    weightBytes: BigInt(info?.weightBytes ?? 0),
    storage: info?.storage ?? '',
    predictionType: info?.predictionType ?? '',
    schedulers: [...(info?.schedulers ?? [])],
    nativeSize: Math.max(info?.nativeWidth ?? 0, info?.nativeHeight ?? 0),
    nativeWidth: info?.nativeWidth ?? 0,
    nativeHeight: info?.nativeHeight ?? 0,
    sizeMultiple: info?.sizeMultiple ?? 0,
    layers: info?.layers ?? 0,
    nativeFrames: info?.clip?.frames ?? 0,
    nativeFps: info?.clip?.fps ?? 0,
    referenceRoles: (info?.frames?.takes ?? []).map((place) => ROLES[place]),
    neededReferenceRoles: (info?.frames?.needs ?? []).map((place) => ROLES[place]),
    residentBytes: engines.reduce((sum, { residentBytes }) => sum + residentBytes, 0n),
    restarts: sum(engines, ({ restarts }) => restarts),
    problem: failure?.message ?? '',
    loras: [],
    embeddings: [],
    controlnets: [],
    upscalers: [],
    takes: [],
    samplingPresets: [],
    variants: sum(engines, ({ variants }) => variants),
    variantBuilds: sum(engines, ({ variantBuilds }) => variantBuilds),
    networks: engines.find(({ networks }) => networks.length > 0)?.networks ?? [],
    engines,
  };
}

function sum(engines: readonly EngineStatus[], numberOf: (engine: EngineStatus) => number): number {
  return engines.reduce((total, engine) => total + numberOf(engine), 0);
}

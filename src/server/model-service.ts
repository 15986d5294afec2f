import type { EngineState, Supervisor } from '../engine/supervisor.js';
import { InferenceError } from '../errors.js';
import { type Model, type ModelServiceServer, ModelState } from '../gen/darkroom/v1/model_service.js';
import { version } from '../version.js';
import type { ServerState } from './state.js';
import { unary } from './stream.js';

const STATES: Readonly<Record<EngineState, ModelState>> = {
  starting: ModelState.MODEL_STATE_LOADING,
  ready: ModelState.MODEL_STATE_READY,
  busy: ModelState.MODEL_STATE_BUSY,
  restarting: ModelState.MODEL_STATE_RESTARTING,
  failed: ModelState.MODEL_STATE_FAILED,
  stopped: ModelState.MODEL_STATE_UNLOADED,
};

export function createModelService(state: ServerState): ModelServiceServer {
  const notServed = (what: string) => (): never => {
    throw new InferenceError(
      'NOT_SERVED_YET',
      `${what} is not served by this version: models load when the server starts`,
    );
  };
  const models = () => state.engines.map(describeModel);
  return {
    listModels: unary(state.calls, () => ({ models: models() })),
    loadModel: unary(state.calls, notServed('LoadModel')),
    unloadModel: unary(state.calls, notServed('UnloadModel')),
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

function describeModel(engine: Supervisor): Model {
  const { info } = engine;
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
  };
}

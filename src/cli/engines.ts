import type { Config } from '../config.js';
import { createSupervisor, type Supervisor } from '../engine/supervisor.js';
import { InferenceError } from '../errors.js';
import type { Logger } from '../log.js';

/** One supervised engine for every model that the configuration names. */
export function createEngines(config: Config, log: Logger): readonly Supervisor[] {
  if (config.SDXL_PATH === undefined) {
    throw new InferenceError(
      'INVALID_REQUEST',
      'no model: give --sdxl PATH or set SDXL_PATH to a diffusers-layout SDXL folder',
    );
  }
  return [
    createSupervisor({
      spec: { model: config.SDXL_NAME, path: config.SDXL_PATH, device: config.DEVICE, threads: config.ENGINE_THREADS },
      log,
      cancelBoundMs: config.CANCEL_BOUND_MS,
      hangTimeoutMs: config.HANG_TIMEOUT_MS,
    }),
  ];
}

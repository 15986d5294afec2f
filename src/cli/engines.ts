import type { Config } from '../config.js';
import { createSupervisor, type Supervisor } from '../engine/supervisor.js';
import { InferenceError } from '../errors.js';
import type { Logger } from '../log.js';

/** One supervised engine for every model that the configuration names. */
export function createEngines(config: Config, log: Logger): readonly Supervisor[] {
  if (config.SDXL_PATH === undefined) {
    throw new InferenceError(
      'INVALID_REQUEST',
      'no model: give --sdxl PATH or set SDXL_PATH to an SDXL checkpoint, a diffusers-layout folder or a .safetensors file',
    );
  }
  return [
    createSupervisor({
      spec: {
        model: config.SDXL_NAME,
        source: {
          path: config.SDXL_PATH,
          tokenizer: config.SDXL_TOKENIZER,
          vae: config.SDXL_VAE,
          textEncoder: config.SDXL_TEXT_ENCODER,
          textEncoder2: config.SDXL_TEXT_ENCODER_2,
          predictionType: config.SDXL_PREDICTION_TYPE,
          zeroTerminalSnr: config.SDXL_ZERO_TERMINAL_SNR && config.SDXL_ZERO_TERMINAL_SNR === 'true',
        },
        device: config.DEVICE,
        threads: config.ENGINE_THREADS,
        batchPixels: config.BATCH_PIXELS,
      },
      log,
      cancelBoundMs: config.CANCEL_BOUND_MS,
      hangTimeoutMs: config.HANG_TIMEOUT_MS,
    }),
  ];
}
